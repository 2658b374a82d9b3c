"""`millm bench` against a real server, and against servers that fail, hang, or report no usage."""

import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from millm.cli.bench import TimedAnswer, run_requests, summarize_level, time_request
from millm.cli.http_client import RemoteServer
from tests.cli.terminal import assert_refused_at_once, free_port, millm, started
from tests.fixtures.process import Server

SHORT = ("--tokens", "6", "--requests", "4", "--prompts", "32,64", "--concurrency")


def report(server_url: str, home: Path, *options: str) -> Any:
    ran = millm("bench", "--url", server_url, "--json", *options, home=home)
    assert (ran.code, ran.leftover_processes) == (0, []), ran
    return json.loads(ran.out)


def test_json_report(server: Server) -> None:
    result = report(server.url, server.home, *SHORT, "1,3")
    assert (result["url"], result["model"], result["profile"], result["tokens"]) == (server.url, "tiny-llama", None, 6)
    assert result["prompts"] == [32, 64]
    assert [level["concurrency"] for level in result["levels"]] == [1, 3]
    for level in result["levels"]:
        assert (level["requests"], level["errors"], level["first_error"]) == (4, 0, None)
        assert level["is_whole"]
        assert level["tokens_counted_by"] == "server"
        assert 4 <= level["output_tokens"] <= 24
        assert level["tokens_per_second"] == pytest.approx(level["output_tokens"] / level["seconds"], rel=0.05)
        assert 0 < level["first_token_ms"]["p50"] <= level["first_token_ms"]["p95"]
        assert level["prompt_tokens"] > 4 * 32


def test_table_report(server: Server) -> None:
    ran = millm("bench", "--url", server.url, "--profile", "push", *SHORT, "2", home=server.home)
    assert (ran.code, ran.leftover_processes) == (0, [])
    assert f"tiny-llama at {server.url}, profile push" in ran.out
    assert re.search(r"│ +2 │ +[\d.]+ │ +[\d,]+ / [\d,]+ │ +[\d,]+ / [\d,]+ │ +4 │ +0 │", ran.out)
    assert "2 at once" in ran.err


def test_token_counts_match_the_api(server: Server) -> None:
    """`time_request` against the chunks of the same stream."""
    remote = RemoteServer(server.url)
    body: dict[str, object] = {
        "model": server.model, "messages": [{"role": "user", "content": "One."}], "temperature": 0, "max_tokens": 9,
    }  # fmt: skip
    answer = time_request(remote, body)
    pieces = [choice.delta.text for chunk in remote.stream_chat(body) for choice in chunk.choices if choice.delta.text]
    assert len(answer.gaps) == len(pieces) - 1
    assert 1 <= answer.tokens <= 9
    assert 0 < answer.first_text <= answer.first_text + sum(answer.gaps) <= answer.seconds


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler, int], None]) -> Iterator[str]:
    """A server that lists one model and passes each chat request, numbered from 0, to `answer`. Yields its URL."""
    numbers = count()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            send(self, 200, b'{"data": [{"id": "m"}]}')

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            answer(self, next(numbers))

        def log_message(self, *_: object) -> None:
            """No log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def written(*texts: str) -> bytes:
    """A stream without `usage`."""
    chunks = [{"choices": [{"delta": {"content": text}}]} for text in ("", *texts)]
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def every_second_fails(handler: BaseHTTPRequestHandler, number: int) -> None:
    if number % 2:
        send(handler, 503, b'{"error": {"message": "full up", "code": "queue_full"}}')
    else:
        send(handler, 200, written("The ", "sea"))


def test_half_the_requests_fail(tmp_path: Path) -> None:
    with serving(every_second_fails) as url:
        (level,) = report(url, tmp_path, "--concurrency", "1", "--requests", "7")["levels"]
    assert (level["requests"], level["errors"], level["first_error"]) == (7, 4, "full up")
    assert (level["output_tokens"], level["tokens_counted_by"]) == (6, "pieces")


def test_errors_are_listed_below_the_table(tmp_path: Path) -> None:
    with serving(every_second_fails) as url:
        ran = millm("bench", "--url", url, "--concurrency", "2", "--requests", "4", home=tmp_path)
    assert ran.code == 0
    assert "errors at 2 at once, the first: full up" in ran.out
    assert "each piece of text counts as one" in ran.out


def test_all_requests_fail(tmp_path: Path) -> None:
    with serving(lambda handler, _: send(handler, 400, b'{"error": {"message": "no such thing", "code": 400}}')) as url:
        ran = millm("bench", "--url", url, home=tmp_path)
    assert ran.code == 1
    assert ran.last_line == "error: no such thing"


def test_an_ignored_profile_is_an_error(tmp_path: Path) -> None:
    with serving(lambda handler, _: send(handler, 200, written("The ", "sea"))) as url:
        ran = millm("bench", "--url", url, "--profile", "push", home=tmp_path)
    assert ran.code == 1
    assert "ignores profile 'push'" in ran.last_line


@pytest.mark.parametrize("options", [(), ("--model", "m")])
def test_no_server(options: tuple[str, ...], tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ran = millm("bench", "--url", url, *options, home=tmp_path)
    assert ran.code == 1
    assert ran.last_line.startswith(f"error: no miLLM server answers at {url}; start one with `millm demo`")
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("levels", ["0", "1,,8", "eight", "1,257"])
def test_invalid_levels_are_rejected(levels: str, tmp_path: Path) -> None:
    assert_refused_at_once(millm("bench", "--concurrency", levels, home=tmp_path), repr(levels), "1 to 256", "1,8,32")


def test_a_prompt_beyond_the_context_is_rejected(server: Server) -> None:
    ran = millm("bench", "--url", server.url, "--prompts", "512", home=server.home)
    assert ran.code == 1
    assert "256 tokens" in ran.last_line


def silent_after(answered: int) -> tuple[Callable[[BaseHTTPRequestHandler, int], None], threading.Event]:
    """A server that hangs after `answered` requests, and the event that is set when it first hangs."""
    waiting = threading.Event()

    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        if number < answered:
            send(handler, 200, written("The ", "sea"))
        else:
            waiting.set()
            time.sleep(60)

    return answer, waiting


def test_ctrl_c_prints_the_completed_measurements(tmp_path: Path) -> None:
    """Also while the server hangs: after three warm-up answers, four of the first level, one of the second."""
    answer, waiting = silent_after(3 + 4 + 1)
    options = ("--json", "--concurrency", "1,2,8", "--requests", "4")
    with serving(answer) as url, started("bench", "--url", url, *options, home=tmp_path) as process:
        assert waiting.wait(60)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    first, second = json.loads(out)["levels"]
    assert (first["is_whole"], first["requests"]) == (True, 4)
    assert (second["is_whole"], second["requests"], second["tokens_per_second"]) == (False, 1, None)
    assert first["tokens_per_second"] > 0


def test_all_readers_run_concurrently() -> None:
    """The server answers only once all five readers have connected."""
    gathered = threading.Barrier(5, timeout=30)

    def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
        gathered.wait()
        send(handler, 200, written("The ", "sea"))

    with serving(answer) as url:
        results = list(run_requests(RemoteServer(url), [{}] * 10, 5))
    assert [isinstance(result, TimedAnswer) for result in results] == [True] * 10


def test_an_empty_answer_is_an_error() -> None:
    with serving(lambda handler, _: send(handler, 200, written())) as url:
        level = summarize_level(1, list(run_requests(RemoteServer(url), [{}], 1)), 1.0)
    assert (level.errors, level.first_error) == (1, "the answer holds no token")
    assert (level.tokens_per_second, level.first_token_ms, level.inter_token_ms) == (None, None, None)
