"""Tokens per second of a real server for 1, 8 and 32 readers at once, and over plain `generate`; start, memory.

Two servers of the demo model with its SAE, one with MILLM_CPU_INT8=off and one with `auto`, idle while anything else is
measured. Against `generate`: 8 prompts at once on each server, and the same 8 one after another in plain transformers
(fp32), in turn there and back within one run; the ratio of tokens per second has a bootstrap 95 % interval over these
blocks. Twice: with short chat prompts, and with the mixed ones of `millm bench`, where reading the prompt weighs more.
Result: benchmarks/results/throughput.json, saved after every section.

    python -m benchmarks.throughput [--tokens 64] [--blocks 8] [--minutes 5]
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path

import msgspec

from benchmarks import options, readers, servers
from benchmarks.generate import Generate, Written
from benchmarks.pairs import blocks
from benchmarks.ratios import summarize_ratios
from benchmarks.record import Record
from benchmarks.servers import Running
from millm.cli.bench import PROMPT_LENGTHS, make_prompts
from millm.demo import bundle

REQUESTS = {1: 6, 8: 16, 32: 32}
"""Readers at once → requests."""
AT_ONCE = 8
PROMPTS: dict[str, Sequence[int]] = {"short": PROMPT_LENGTHS[:1], "mixed": PROMPT_LENGTHS}
"""Tokens of the prompts, roughly."""


def main() -> None:
    arguments = options.parse(options.with_blocks(options.parser(__doc__, tokens=64), blocks=8, minutes=5))
    description = f"answers of up to {arguments.tokens} tokens, greedy; against `generate`: {AT_ONCE} at once"
    record = Record(arguments.results / "throughput.json", description)
    folder = options.demo_model(arguments.home)
    sae = ("--sae", str(bundle.SAE_FOLDER))
    with tempfile.TemporaryDirectory() as scratch:
        for int8 in ("off", "auto"):
            record.section(f"starts/{int8}", partial(starts, folder, Path(scratch, f"alone-{int8}"), int8))
        with (
            servers.millm(folder, Path(scratch, "off"), *sae, cpu_int8="off") as off,
            servers.millm(folder, Path(scratch, "auto"), *sae, cpu_int8="auto") as auto,
        ):
            measure(record, {"off": off, "auto": auto}, Generate(folder), arguments)


def starts(folder: Path, home: Path, int8: str) -> dict[str, float]:
    """Seconds from start to ready, without and with the SAE, in an empty home."""
    with servers.millm(folder, home.with_name(f"{home.name}-model"), cpu_int8=int8) as model:
        without = model.ready_seconds
    with servers.millm(folder, home, "--sae", str(bundle.SAE_FOLDER), cpu_int8=int8) as tapped:
        return {"ready_seconds_without_sae": without, "ready_seconds": tapped.ready_seconds}


def measure(record: Record, running: Mapping[str, Running], generate: Generate, arguments: argparse.Namespace) -> None:
    for int8, server in running.items():
        model = server.remote.choose_model(None)
        record.section(
            f"levels/{int8}",
            partial(readers.levels, server, model, arguments.tokens, REQUESTS, {"steering": None}),
        )
    deadline = time.monotonic() + 60 * arguments.minutes
    for left, (name, sizes) in zip((2, 1), PROMPTS.items(), strict=True):
        share = (deadline - time.monotonic()) / left
        record.section(
            f"against_generate/{name}",
            partial(against, running, generate, sizes, arguments.tokens, arguments.blocks, share),
        )
    for int8, server in running.items():
        record.section(f"peak_mb/{int8}", server.peak_mb)


def against(
    running: Mapping[str, Running], generate: Generate, sizes: Sequence[int], tokens: int, most: int, seconds: float
) -> dict[str, object]:
    """Per server, its throughput over that of `generate`."""
    runs = {
        "generate": _each_time_others(lambda prompts: generate.write(prompts, tokens), sizes),
        **{
            int8: _each_time_others(_together(server, tokens), sizes) for int8, server in running.items()
        },
    }  # fmt: skip
    done = blocks(runs, most, seconds)
    totals = {name: [there + back for there, back in (block[name] for block in done)] for name in runs}
    return {
        "prompts": list(sizes),
        "generate": _rate(totals["generate"]),
        **{int8: _rate(totals[int8]) | _over(totals[int8], totals["generate"]) for int8 in running},
    }


def _together(server: Running, tokens: int) -> Callable[[Sequence[str]], Written]:
    model = server.remote.choose_model(None)
    return lambda prompts: readers.together(server, model, prompts, tokens)


def _each_time_others(write: Callable[[Sequence[str]], Written], sizes: Sequence[int]) -> Callable[[], Written]:
    """The same prompts for all peers, but new ones for each run, to avoid prompt caches."""
    numbers = count(1000 * sum(sizes), AT_ONCE)
    return lambda: write(make_prompts(next(numbers), AT_ONCE, sizes))


def _rate(written: Sequence[Written]) -> dict[str, object]:
    """Of all blocks together."""
    total = sum(written[1:], start=written[0])
    return {"output_tokens": total.tokens, "tokens_per_second": round(total.per_second, 2)}


def _over(ours: Sequence[Written], theirs: Sequence[Written]) -> dict[str, object]:
    pairs = zip(ours, theirs, strict=True)
    return msgspec.structs.asdict(summarize_ratios([one.per_second / other.per_second for one, other in pairs]))


if __name__ == "__main__":
    main()
