"""Two checkouts of miLLM against each other in one run: start, memory, throughput and the cost of steering.

Both serve the demo model with its SAE, in the same environment; one is idle while the other is measured. Each block
runs before, after, after, before with the same greedy requests. A ratio is after over before: of seconds for the start
and for a token, of tokens per second for throughput; the median of the blocks with a bootstrap 95 % interval.
Result: benchmarks/results/versions.json, saved after every section.

    git worktree add ../before REVISION
    python -m benchmarks.versions --before ../before [--blocks 12] [--tokens 48] [--minutes 8]
"""

import argparse
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import count
from pathlib import Path

import msgspec

from benchmarks import options, readers, servers
from benchmarks.pairs import Block, blocks
from benchmarks.ratios import summarize_ratios
from benchmarks.record import Record
from benchmarks.servers import Running
from millm.cli.bench import RequestBody, make_prompts
from millm.demo import bundle

READERS = (1, 8)
"""Requests at once."""
STEERINGS: dict[str, RequestBody] = {
    "base": {"steering": None},
    "add-1": {"steering": {"features": [{"index": 1643, "strength": 40, "mode": "add"}]}},
    "watch-32": {"steering": None, "activations": {"features": list(range(300, 332))}},
}
STARTS = 3
"""Blocks, each of four starts."""
ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = options.with_blocks(options.parser(__doc__, tokens=48), blocks=12, minutes=8)
    parser.add_argument("--before", type=Path, required=True, help="the checkout to compare with")
    parser.add_argument("--after", type=Path, default=ROOT, help="the checkout to judge")
    given = options.parse(parser)
    trees = {"before": given.before.resolve(), "after": given.after.resolve()}
    record = Record(
        given.results / "versions.json", f"ABBA, up to {given.blocks} blocks, {given.tokens} tokens, greedy"
    )
    record.put("revisions", {name: _revision(tree) for name, tree in trees.items()})
    model = options.demo_model(given.home)
    with tempfile.TemporaryDirectory() as scratch:
        folders = (Path(scratch, str(number)) for number in count())
        starts = {name: partial(_start_seconds, model, folders, tree) for name, tree in trees.items()}
        record.section("start_seconds", lambda: compare(blocks(starts, STARTS, 60 * given.minutes)))
        with (
            _serve(model, next(folders), trees["before"]) as before,
            _serve(model, next(folders), trees["after"]) as after,
        ):
            measure(record, {"before": before, "after": after}, given)


def measure(record: Record, running: Mapping[str, Running], given: argparse.Namespace) -> None:
    share = 60 * given.minutes / (len(READERS) * len(STEERINGS))
    for at_once in READERS:
        for steering, extra in STEERINGS.items():
            runs = {name: _tokens_per_second(server, at_once, given.tokens, extra) for name, server in running.items()}
            record.section(f"tokens_per_second/{at_once}/{steering}", partial(_compare_for, runs, given.blocks, share))
    for name, server in running.items():
        record.section(f"peak_mb/{name}", server.peak_mb)


def _compare_for(runs: Mapping[str, Callable[[], float]], most: int, seconds: float) -> dict[str, object]:
    return compare(blocks(runs, most, seconds))


def compare(done: Sequence[Block[float]]) -> dict[str, object]:
    """Medians of both, and the ratio after / before of each block with its interval."""
    means = {name: [statistics.mean(block[name]) for block in done] for name in ("before", "after")}
    ratios = [after / before for before, after in zip(means["before"], means["after"], strict=True)]
    medians = {name: round(statistics.median(values), 3) for name, values in means.items()}
    return medians | msgspec.structs.asdict(summarize_ratios(ratios))


def _serve(model: Path, home: Path, tree: Path) -> AbstractContextManager[Running]:
    return servers.checkout(tree, model, home, "--sae", str(bundle.SAE_FOLDER))


def _start_seconds(model: Path, folders: Iterator[Path], tree: Path) -> float:
    with _serve(model, next(folders), tree) as running:
        return running.ready_seconds


def _tokens_per_second(server: Running, at_once: int, tokens: int, extra: RequestBody) -> Callable[[], float]:
    """Prompts that neither server has seen; both get the same ones."""
    name, numbers = server.remote.choose_model(None), count(0, at_once)
    return lambda: readers.together(server, name, make_prompts(next(numbers), at_once), tokens, extra).per_second


def _revision(tree: Path) -> str:
    done = subprocess.run(["git", "-C", tree, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
