"""Log lines: redaction of secrets and paths, the buffer of the latest, and output formats."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millm.logs.recent import MAX_LINES, RecentLines, without_trace
from millm.logs.redaction import REDACTED, PathRedaction, SecretRedaction, to_json_value

KEYS = ("key-of-the-house", "key-of-the-admin")
TOKEN = "hf_" + "abcDEF0123456789"
HOME = Path("/home/ann/.cache/my models/millm")


@pytest.mark.parametrize(
    "text",
    [
        f"token {TOKEN} refused",
        f"'{TOKEN}'",
        f"https://x.org/a?token={TOKEN}&b=1",
        f"Authorization: Bearer {KEYS[0]}.more",
        f"authorization: bearer {TOKEN}",
        f"https://ann:{KEYS[0]}@x.org/a",
        f"https://ann:pass@word{KEYS[1]}@x.org/a",
        f"https://{KEYS[1]}@x.org/a",
        f"ws://x/api/events?ticket={KEYS[0]}",
        f"https://x/?X-Amz-Signature={KEYS[0]}&y=2",
        f"{KEYS[1]}{KEYS[0]}",
        repr({"key": KEYS[0], TOKEN: [KEYS[1]]}),
    ],
)
def test_secrets_are_redacted_by_pattern_and_value(text: str) -> None:
    by_look_and_value = SecretRedaction(KEYS).redact(text)
    assert REDACTED in by_look_and_value
    assert not any(secret in by_look_and_value for secret in (*KEYS, TOKEN))


@pytest.mark.parametrize("text", ["https://x.org/a?page=2", "half_a_word", "tokens=12", "a@b.org"])
def test_other_text_is_not_redacted(text: str) -> None:
    assert SecretRedaction(("abc", "")).redact(text) == text


@given(
    st.recursive(
        st.text(max_size=5) | st.just(f"a {TOKEN}") | st.just(KEYS[0]) | st.integers(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just(KEYS[1]) | st.text(max_size=3), inner),
        max_leaves=8,
    )
)
def test_nested_secrets_are_redacted(value: Any) -> None:
    left = json.dumps(SecretRedaction(KEYS).redact(to_json_value(value)))
    assert not any(secret in left for secret in (*KEYS, TOKEN))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"cannot read {HOME}/saes/x.bin", "cannot read MILLM_HOME/saes/x.bin"),
        (f"{HOME}", "MILLM_HOME"),
        ("No such file: '/usr/share/some model/config.json'", "No such file: '…/config.json'"),
        ("in /usr/lib/python3/x.py, line 3", "in …/x.py, line 3"),
        ("(/tmp/a/b)", "(…/b)"),
        ("POST /v1/chat/completions", "POST /v1/chat/completions"),
        ("https://huggingface.co/home/x", "https://huggingface.co/home/x"),
        ("3/4 of home/ann", "3/4 of home/ann"),
    ],
)
def test_paths_are_reduced_to_the_last_component(text: str, shown: str) -> None:
    assert PathRedaction(HOME).redact(text) == shown


def test_non_json_values_are_converted() -> None:
    told = to_json_value({1: (HOME, {"x"}), "name": "caf\udce9", "text": "é"})
    assert told == {"1": [repr(HOME), ["x"]], "name": "caf\\udce9", "text": "é"}


def line(number: int, level: str = "info") -> dict[str, Any]:
    return {"event": f"event.{number}", "level": level, "timestamp": "2026-01-01T00:00:00Z", "number": number}


def test_latest_lines_and_lines_after_a_number() -> None:
    recent = RecentLines()
    for number in range(1, MAX_LINES + 101):
        recent.add(line(number, "error" if number % 10 == 0 else "debug"))
    everything = recent.lines()
    assert [each.number for each in everything] == list(range(101, MAX_LINES + 101))
    assert all(each.event == f"event.{each.number}" and each.fields == {"number": each.number} for each in everything)
    assert recent.lines(limit=3) == everything[-3:]
    assert recent.lines(after=MAX_LINES, limit=3) == everything[-100:-97]
    assert recent.lines(after=MAX_LINES + 100) == []
    assert recent.lines(after=MAX_LINES + 101) == everything, "that number is of a server before"
    assert [each.number for each in recent.lines(level="warning", after=MAX_LINES + 70)] == [
        MAX_LINES + 80, MAX_LINES + 90, MAX_LINES + 100
    ]  # fmt: skip


def test_long_values_and_tracebacks_are_cut() -> None:
    recent = RecentLines()
    trace = (
        'Traceback (most recent call last):\n  File "/usr/lib/x/millm/engine/work.py", line 7, in step\n    boom()\n'
        '  File "/usr/lib/y/torch/nn.py", line 9, in f\n    raise\nValueError: no such thing'
    )
    recent.add({**line(1), "long": "x" * 9000})
    recent.add(without_trace({**line(2), "exception": trace}))
    long, raised = recent.lines()
    assert len(long.fields["long"]) < 2100
    assert raised.fields["exception"] == "ValueError: no such thing (millm/engine/work.py:7)"


SCRIPT = """
import logging, pathlib, structlog
from millm import logs
from millm.settings import Settings
logs.configure(Settings(home={home!r}, api_key={key!r}, log_format={fmt!r}, log_level="info"))
log = structlog.get_logger()
try:
    raise OSError(2, "No such file", {home!r} + "/saes/x")
except OSError:
    log.exception("it.broke", path=pathlib.Path({home!r}), key="use " + {key!r}, token={token!r})
logging.getLogger("uvicorn.error").error("a library says %s", {token!r})
log.debug("too.fine")
fields = {{"key": {key!r}, "exception": "Traceback\\nKeyError: 1"}}
logs.write_forwarded("warning", "engine.says", "2026-01-01T00:00:00Z", fields)
import msgspec
print(msgspec.json.encode(logs.RECENT_LINES.lines()).decode())
"""


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_one_line_on_stderr_and_over_http(fmt: str) -> None:
    code = SCRIPT.format(home=str(HOME), key=KEYS[0], token=TOKEN, fmt=fmt)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not re.search(f"{KEYS[0]}|{TOKEN}", done.stderr + done.stdout)
    assert str(HOME) in done.stderr, "the terminal is the operator's"
    assert "Traceback" in done.stderr
    assert not re.search(r"/home/ann|Traceback", done.stdout)
    broke, said, told = json.loads(done.stdout)
    assert (broke["event"], broke["level"], broke["fields"]["key"]) == ("it.broke", "error", f"use {REDACTED}")
    assert broke["fields"]["exception"].startswith("FileNotFoundError: [Errno 2] No such file: 'MILLM_HOME/saes/x'")
    assert (said["event"], said["fields"]) == (f"a library says {REDACTED}", {"logger": "uvicorn.error"})
    assert (told["time"], told["fields"]) == ("2026-01-01T00:00:00Z", {"key": REDACTED, "exception": "KeyError: 1"})
    if fmt == "json":
        assert [json.loads(each)["event"] for each in done.stderr.splitlines()] == [
            "it.broke", f"a library says {REDACTED}", "engine.says"
        ]  # fmt: skip
