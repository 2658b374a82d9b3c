"""The cost of steering and watching, end to end: pairwise ABBA over two real servers on the demo model.

Server A has no SAE. Server B has the demo's. Each block runs A, B, B, A with the same greedy requests; its ratio is
B's time per token over A's. Reported: the median of the blocks' ratios with a bootstrap 95 % interval, and the time to
the first token. Result: benchmarks/results/overhead.json, saved after every mode.

    python -m benchmarks.overhead [--blocks 24] [--tokens 24] [--minutes 10]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import msgspec

from benchmarks import options, servers
from benchmarks.pairs import Block, blocks
from benchmarks.ratios import summarize_ratios
from benchmarks.record import Record
from benchmarks.servers import Running
from millm.cli.bench import RequestBody, TimedAnswer, summarize_percentiles, time_request
from millm.demo import bundle
from millm.errors import Unavailable

PROMPT = "Tell me {} things about the sea."
"""A new number for each request of a server, to avoid its prompt cache."""


def feature(index: int, strength: float, mode: str = "add") -> dict[str, object]:
    return {"index": index, "strength": strength, "mode": mode}


ONE = {"features": [feature(1643, 40)]}
WATCHED = {"features": list(range(300, 332))}
MODES: dict[str, RequestBody] = {
    "attached-idle": {"steering": None},
    "add-1": {"steering": ONE},
    "add-16": {"steering": {"features": [feature(100 + index, 3) for index in range(16)]}},
    "clamp-8": {"steering": {"features": [feature(200 + index, 5, "clamp") for index in range(8)]}},
    "watch-32": {"steering": None, "activations": WATCHED},
    "watch-32+add": {"steering": ONE, "activations": WATCHED},
    "full-width": {"steering": None, "activations": {"top_k": 5}},
}
"""`full-width` encodes the full dictionary for every token."""


def main() -> None:
    arguments = options.parse(options.with_blocks(options.parser(__doc__, tokens=24), blocks=24, minutes=10))
    description = f"ABBA, up to {arguments.blocks} blocks of 4 answers of {arguments.tokens} tokens, greedy"
    record = Record(arguments.results / "overhead.json", description)
    folder = options.demo_model(arguments.home)
    with (
        tempfile.TemporaryDirectory() as scratch,
        servers.millm(folder, Path(scratch, "a")) as a,
        servers.millm(folder, Path(scratch, "b"), "--sae", str(bundle.SAE_FOLDER)) as b,
    ):
        measure(record, a, b, arguments)


def measure(record: Record, a: Running, b: Running, arguments: argparse.Namespace) -> None:
    """One mode after another, each with an even share of the minutes that are left."""
    deadline = time.monotonic() + 60 * arguments.minutes
    numbers_a, numbers_b = count(1), count(1)
    first_tokens: list[float] = []
    for index, (name, extra) in enumerate(MODES.items()):
        share = (deadline - time.monotonic()) / (len(MODES) - index)
        base = asker(a, {"steering": None}, arguments.tokens, numbers_a)
        tapped = asker(b, extra, arguments.tokens, numbers_b)
        record.section(f"modes/{name}", partial(mode, base, tapped, arguments.blocks, share, first_tokens))
        record.put("first_token_ms", msgspec.to_builtins(summarize_percentiles(first_tokens, scale=1000)))


def asker(server: Running, extra: RequestBody, tokens: int, numbers: Iterator[int]) -> Callable[[], TimedAnswer]:
    """Sends the prompt of the next number. Raises Unavailable when the answer is too short to time."""
    model = server.remote.choose_model(None)

    def run() -> TimedAnswer:
        messages = [{"role": "user", "content": PROMPT.format(next(numbers))}]
        body: RequestBody = {"model": model, "messages": messages, "temperature": 0, "max_tokens": tokens, **extra}
        answer = time_request(server.remote, body)
        if not answer.gaps:
            raise Unavailable(f"the answer holds {answer.tokens} tokens in one piece: there is nothing between them")
        return answer

    return run


def mode(
    base: Callable[[], TimedAnswer],
    tapped: Callable[[], TimedAnswer],
    most: int,
    seconds: float,
    first_tokens: list[float],
) -> dict[str, object]:
    """Adds the mode's times to the first token, in seconds, to `first_tokens`."""
    for warm in (base, tapped):
        warm()
    done = blocks({"base": base, "tapped": tapped}, most, seconds)
    first_tokens += [answer.first_text for block in done for answer in block["tapped"]]
    times = {name: [_per_token(block, name) for block in done] for name in ("base", "tapped")}
    ratios = summarize_ratios([tapped / base for base, tapped in zip(times["base"], times["tapped"], strict=True)])
    return {
        **msgspec.structs.asdict(ratios),
        "tokens_per_second": round(1 / statistics.median(times["tapped"]), 2),
        "base_tokens_per_second": round(1 / statistics.median(times["base"]), 2),
    }


def _per_token(block: Block[TimedAnswer], name: str) -> float:
    """Seconds, there and back."""
    return statistics.mean(answer.seconds_per_token for answer in block[name])


if __name__ == "__main__":
    main()
