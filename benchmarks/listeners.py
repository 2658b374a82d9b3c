"""The cost of listeners of `/api/events` for the answers: pairwise ABBA on one real server with a tiny model.

The tiny random model of the tests writes some hundred tokens a second on one thread, so that events come as on a GPU.
Each block runs base, case, case, base; its ratio is the case's time per token over the base's, without listeners.
Result: benchmarks/results/listeners.json, saved after every case.

    python -m benchmarks.listeners [--blocks 24] [--tokens 160] [--minutes 2]
"""

import argparse
import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec

from benchmarks import options, servers
from benchmarks.pairs import blocks
from benchmarks.ratios import summarize_ratios
from benchmarks.record import Record
from millm.events import MAX_SUBSCRIPTIONS
from tests.fixtures.tiny import write_model, write_sae

WATCHED = {"features": list(range(32)), "tokens": "all"}
PROMPT = list(range(10, 42))

Listening = Callable[[str], contextlib.AbstractContextManager[object]]


def main() -> None:
    arguments = options.parse(options.with_blocks(options.parser(__doc__, tokens=160), blocks=24, minutes=2))
    record = Record(
        arguments.results / "listeners.json", f"ABBA, up to {arguments.blocks} blocks of 4 answers, tiny model"
    )
    with tempfile.TemporaryDirectory() as scratch:
        model, sae = write_model(Path(scratch, "tiny-llama")), write_sae(Path(scratch, "tiny"))
        with servers.millm(model, Path(scratch, "home"), "--sae", str(sae), cpu_threads="1") as server:
            measure(record, server.remote.url, arguments)


def measure(record: Record, url: str, arguments: argparse.Namespace) -> None:
    cases: dict[str, tuple[Listening, bool]] = {
        "nobody, 32 features watched": (no_listeners, True),
        "one that never reads": (never_reading, True),
        "64 listeners": (partial(reading, count=MAX_SUBSCRIPTIONS), True),
        "one, every token of 32 features": (partial(reading, count=1), True),
        "64 listeners, nothing watched": (partial(reading, count=MAX_SUBSCRIPTIONS), False),
    }
    for name, (listening, watches) in cases.items():
        record.section(
            f"cases/{name}", partial(case, url, arguments, listening, watches, arguments.minutes * 60 / len(cases))
        )


def case(url: str, arguments: argparse.Namespace, listening: Listening, watches: bool, seconds: float) -> object:
    """Both sides watch the same, so that only the listeners differ."""
    base = partial(per_token, url, arguments.tokens, no_listeners, watches and listening is not no_listeners)
    with_listeners = partial(per_token, url, arguments.tokens, listening, watches)
    for warm in (base, with_listeners):
        warm()
    done = blocks({"base": base, "heard": with_listeners}, arguments.blocks, seconds)
    times = {name: [sum(block[name]) / 2 for block in done] for name in ("base", "heard")}
    ratios = summarize_ratios(
        [case_time / other for case_time, other in zip(times["heard"], times["base"], strict=True)]
    )
    return {**msgspec.structs.asdict(ratios), "base_tokens_per_second": round(1 / min(times["base"]), 1)}


def per_token(url: str, tokens: int, listening: Listening, watches: bool) -> float:
    """Seconds per token of one answer, while these listen."""
    watch = [{"sae": "tiny", **WATCHED}]
    httpx.put(f"{url}/api/monitor", json={"on": watches, "watch": watch}).raise_for_status()
    body = {"model": "tiny-llama", "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    with listening(url):
        start = time.perf_counter()
        httpx.post(f"{url}/v1/completions", json=body, timeout=60).raise_for_status()
        return (time.perf_counter() - start) / tokens


@contextlib.contextmanager
def no_listeners(_: str) -> Iterator[None]:
    yield


@contextlib.contextmanager
def reading(url: str, count: int) -> Iterator[None]:
    """`count` listeners that read everything, in one process."""
    address = f"{url.replace('http', 'ws')}/api/events"
    command = [sys.executable, "-m", "benchmarks.listener_process", address, str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield
        process.stdin.close()


@contextlib.contextmanager
def never_reading(url: str) -> Iterator[None]:
    """A handshake, and then not one byte is read."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "", address.port or 0)) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.sendall(
            f"GET /api/events HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        yield


if __name__ == "__main__":
    main()
