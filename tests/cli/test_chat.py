"""`millm chat` against a real server, with prompts from a pipe, as a script would use it, and from a terminal."""

import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from millm.cli.terminal import replace_control_chars
from tests.cli.terminal import CompletedCommand, assert_refused_at_once, free_port, millm, started
from tests.fixtures.fakehub import serving
from tests.fixtures.process import Server, environment

PROMPT = "Tell me about the sea."
GREEDY = ("--temperature", "0", "--max-tokens", "12")


def chat(server: Server, *lines: str, options: tuple[str, ...] = GREEDY) -> CompletedCommand:
    ran = millm("chat", "--url", server.url, *options, home=server.home, stdin="\n".join(lines))
    assert (ran.code, ran.leftover_processes) == (0, [])
    assert "\x1b" not in ran.out + ran.err
    return ran


def api(server: Server, prompt: str = PROMPT, **fields: object) -> Any:
    """The same request without streaming."""
    messages = [{"role": "user", "content": prompt}]
    body = {"model": server.model, "messages": messages, "temperature": 0, "max_tokens": 12, **fields}
    answer = httpx.post(f"{server.base_url}/chat/completions", json=body, timeout=60, trust_env=False)
    return answer.raise_for_status().json()


def text_of(answer: Any) -> str:
    return replace_control_chars(answer["choices"][0]["message"]["content"]) + "\n"


def test_an_answer(server: Server) -> None:
    ran = chat(server, PROMPT)
    assert ran.out == text_of(api(server))
    assert ran.last_line == "base model · cut off at the token limit"


def test_steering_changes_the_answer_and_off_restores_it(server: Server) -> None:
    base, ran = chat(server, PROMPT), chat(server, "/steer 3 6 7 5 clamp", PROMPT, "/off", "/reset", PROMPT)
    features = [{"index": 3, "strength": 6.0}, {"index": 7, "strength": 5.0, "mode": "clamp"}]
    steered = api(server, steering={"features": features})
    assert text_of(steered) != base.out
    assert ran.out == text_of(steered) + base.out


def test_the_footnote_is_the_receipt(server: Server) -> None:
    ran = chat(server, "/steer 3 6", "/steer 7 5 clamp", PROMPT)
    receipt = api(
        server, steering={"features": [{"index": 3, "strength": 6}, {"index": 7, "strength": 5, "mode": "clamp"}]}
    )
    steering = receipt["millm"]
    assert ran.last_line.startswith(
        f"features 3 +6, 7 5 clamp · {steering['tokens_steered']} tokens steered · "
        f"delta {steering['delta_norm_ratio']:.1%} of the residual"
    )


def test_steer_shows_and_replaces(server: Server) -> None:
    ran = chat(server, "/steer", "/steer 3 6", "/steer 3 2 norm", "/steer 3 0", "/steer")
    assert ran.err.splitlines() == [
        "steering: as the server has it",
        "steering: features 3 +6",
        "steering: features 3 +2 norm",
        "steering: off: the base model",
        "steering: off: the base model",
    ]


def test_profiles(server: Server) -> None:
    ran = chat(server, "/profile", "/profile push", PROMPT)
    assert ran.out == text_of(api(server, profile="push")) == text_of(api(server, model=f"{server.model}:push"))
    assert ran.err.splitlines()[:2] == ["  hold: The hold profile.", "  push: The push profile."]
    assert ran.last_line.startswith("profile push · ")


def test_profile_from_the_start(server: Server) -> None:
    ran = chat(server, "/profile", PROMPT, options=(*GREEDY, "--profile", "push"))
    assert ran.out == text_of(api(server, profile="push"))
    assert "* push: The push profile." in ran.err


def test_an_unknown_profile_changes_nothing(server: Server) -> None:
    ran = chat(server, "/profile push", "/profile nix", PROMPT)
    assert "error: no profile 'nix' fits what is attached; there are: hold, push" in ran.err
    assert ran.out == text_of(api(server, profile="push"))


def test_a_server_error_is_printed_and_the_chat_continues(server: Server) -> None:
    ran = chat(server, "/steer 999 3", PROMPT, "/off", PROMPT)
    assert "error: feature 999 is not in 0..95 of SAE 'tiny'" in ran.err
    assert ran.out == text_of(api(server))


def test_invalid_commands_change_nothing(server: Server) -> None:
    ran = chat(server, "/off", "/steer eleven 3", "/steer 11", "/steer 11 nan", "/stear 11 3", "/steer")
    messages = ["'eleven' is neither a feature's index", "say how strongly", "'nan'", "no command /stear"]
    assert [words in line for words, line in zip(messages, ran.err.splitlines()[1:-1], strict=True)] == [True] * 4
    assert ran.last_line == "steering: off: the base model"


def test_help_and_quit(server: Server) -> None:
    ran = chat(server, "/help", "/quit", PROMPT)
    assert [word for word in ("/steer", "/profile", "/off", "/reset", "/help", "/quit") if word not in ran.err] == []
    assert ran.out == ""


def test_turns_are_sent_until_reset(server: Server) -> None:
    one, two = text_of(api(server, "One.")), text_of(api(server, "Two."))
    remembering, forgetting = chat(server, "One.", "Two."), chat(server, "One.", "/reset", "Two.")
    assert remembering.out.startswith(one)
    assert forgetting.out == one + two != remembering.out


def test_a_seed_repeats_an_answer(server: Server) -> None:
    options = ("--max-tokens", "12", "--temperature", "1.5", "--seed", "5")
    drawn = text_of(api(server, temperature=1.5, seed=5))
    assert chat(server, PROMPT, "/reset", PROMPT, options=options).out == drawn * 2
    assert drawn != text_of(api(server, temperature=1.5, seed=6))


def test_ctrl_c_stops_an_answer_and_the_chat_continues(server: Server) -> None:
    options = ("--temperature", "0", "--max-tokens", "200", "--url", server.url)
    with started("chat", *options, home=server.home) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{PROMPT}\n")
        process.stdin.flush()
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate("/reset\n/steer\n", timeout=60)
    assert process.returncode == 0
    assert err.splitlines()[0] == "stopped"
    assert err.splitlines()[-1] == "steering: as the server has it"


@pytest.mark.parametrize("key", [b"\x03", b"\x04"], ids=["ctrl-c", "ctrl-d"])
def test_on_a_terminal(key: bytes, server: Server) -> None:
    """A prompt, an answer, and the key that leaves."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "millm", "chat", "--url", server.url, *GREEDY],
        env={**environment(server.home), "TERM": "dumb"},
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=_own_terminal,
    )  # fmt: skip
    os.close(theirs)
    try:
        _read_until(ours, rb"> $")
        os.write(ours, f"{PROMPT}\n".encode())
        seen = _read_until(ours, rb"base model.*> $")
        assert _press(key, ours, process) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert text_of(api(server)).split("\n")[0] in seen


def _own_terminal() -> None:
    """Make the pseudo-terminal the controlling terminal, so that Ctrl+C reaches this process."""
    os.close(os.open(os.ttyname(0), os.O_RDWR))


def _press(key: bytes, terminal: int, process: "subprocess.Popen[bytes]") -> int:
    """Press again until the process exits: a key may arrive before the prompt."""
    for _ in range(20):
        os.write(terminal, key)
        with suppress(subprocess.TimeoutExpired):
            return process.wait(1)
    raise AssertionError("the chat did not exit")


def _read_until(terminal: int, pattern: bytes) -> str:
    seen = b""
    while not re.search(pattern, seen, re.DOTALL):
        seen += os.read(terminal, 4096)
    return seen.decode(errors="replace")


def test_no_server(tmp_path: Path) -> None:
    port = free_port()
    ran = millm("chat", home=tmp_path, MILLM_PORT=port)
    assert_refused_at_once(ran, f"http://127.0.0.1:{port}", "millm serve", "--url")


def test_not_a_millm_server(tmp_path: Path) -> None:
    with serving(tmp_path) as stranger:
        ran = millm("chat", "--url", f"{stranger.url}/v1/", home=tmp_path)
    assert_refused_at_once(ran, stranger.url, "not a miLLM server", "404")


@pytest.mark.parametrize("option", ["--profile", "--model"])
def test_unknown_profile_or_model_is_rejected(option: str, server: Server) -> None:
    ran = millm("chat", "--url", server.url, option, "nix", home=server.home)
    assert_refused_at_once(ran, "'nix'", "push")
