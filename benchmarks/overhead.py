"""What steering and watching cost, end to end: pairwise ABBA over two real servers on the demo model.

Server A has no SAE. Server B has the demo's. Each block runs A, B, B, A with the same greedy request; its ratio is
B's time per token over A's. Reported: the median of the blocks' ratios with a bootstrap 95 % interval, and the time to
the first token. Result: benchmarks/results/overhead.json, and benchmarks/README.md made from it.

    python benchmarks/overhead.py [--blocks 20] [--tokens 32]
"""

import argparse
import contextlib
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from millm.demo import bundle
from millm.demo.weights import prepare
from millm.settings import Settings

RESULT = Path(__file__).parent / "results" / "overhead.json"
PAGE = Path(__file__).parent / "README.md"
PROMPT = "Tell me about the sea."


def feature(index: int, strength: float, mode: str = "add") -> dict[str, object]:
    return {"index": index, "strength": strength, "mode": mode}


MODES: dict[str, dict[str, object]] = {
    "attached-idle": {"steering": None},
    "add-1": {"steering": {"features": [feature(1643, 40)]}},
    "add-16": {"steering": {"features": [feature(100 + index, 3) for index in range(16)]}},
    "clamp-8": {"steering": {"features": [feature(200 + index, 5, "clamp") for index in range(8)]}},
    "watch-32": {"steering": None, "activations": {"features": list(range(300, 332))}},
}


@dataclass(frozen=True)
class Run:
    """One answer."""

    first_token_seconds: float
    seconds_per_token: float
    """Between the first and the last token."""


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as scratch:
        folder = prepare(Path(options.home), source=Settings.load().demo_wheel, on_progress=lambda *_: None)
        plain = ["serve", str(folder)]
        tapped = [*plain, "--sae", str(bundle.SAE_FOLDER)]
        with server(plain, Path(scratch, "a")) as a, server(tapped, Path(scratch, "b")) as b:
            result = measure(a, b, options.blocks, options.tokens)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    PAGE.write_text(page(result), encoding="utf-8")
    print(page(result))


def measure(a: httpx.Client, b: httpx.Client, blocks: int, tokens: int) -> dict[str, object]:
    for client in (a, b):
        run(client, {"steering": None}, tokens)  # warm
    modes: dict[str, object] = {}
    first_tokens: list[float] = []
    for name, extra in MODES.items():
        ratios, base_speed, mode_speed = [], [], []
        for _ in range(blocks):
            one, two = run(a, {"steering": None}, tokens), run(b, extra, tokens)
            three, four = run(b, extra, tokens), run(a, {"steering": None}, tokens)
            base = one.seconds_per_token + four.seconds_per_token
            steered = two.seconds_per_token + three.seconds_per_token
            ratios.append(steered / base)
            base_speed.append(2 / base)
            mode_speed.append(2 / steered)
            first_tokens += [two.first_token_seconds, three.first_token_seconds]
        low, high = interval(ratios)
        modes[name] = {
            "ratio": round(statistics.median(ratios), 4),
            "interval_95": [round(low, 4), round(high, 4)],
            "tokens_per_second": round(statistics.median(mode_speed), 2),
            "base_tokens_per_second": round(statistics.median(base_speed), 2),
        }
        print(f"{name:14} {modes[name]}", flush=True)
    ordered = sorted(first_tokens)
    return {
        "what": f"ABBA, {blocks} blocks of 4 answers of {tokens} tokens, greedy",
        "modes": modes,
        "first_token_ms": {
            "p50": round(1000 * statistics.median(ordered)),
            "p95": round(1000 * ordered[int(0.95 * (len(ordered) - 1))]),
        },
        "machine": machine(),
    }


def run(client: httpx.Client, extra: dict[str, object], tokens: int) -> Run:
    """A streamed chat answer of exactly `tokens` tokens, unless the model ends sooner."""
    body = {
        "model": client.headers["x-model"],
        "messages": [{"role": "user", "content": PROMPT}],
        "temperature": 0, "max_tokens": tokens, "stream": True, **extra,
    }  # fmt: skip
    started = time.perf_counter()
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        times = [time.perf_counter() for line in response.iter_lines() if '"content":"' in line and len(line) > 8]
    texts = times[1:]  # the first chunk only opens the message
    return Run(texts[0] - started, (texts[-1] - texts[0]) / (len(texts) - 1))


def interval(values: list[float], draws: int = 2000) -> tuple[float, float]:
    """Bootstrap 95 % interval of the median."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(draws))
    return medians[int(0.025 * draws)], medians[int(0.975 * draws)]


@contextlib.contextmanager
def server(arguments: list[str], home: Path) -> Iterator[httpx.Client]:
    process = subprocess.Popen(
        [sys.executable, "-m", "millm", *arguments, "--port", "0", "--home", str(home)],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert process.stderr is not None
    try:
        url = next(found[1] for line in process.stderr if (found := re.search(r"ready\s+(http://\S+)", line)))
        with httpx.Client(base_url=url, timeout=120) as client:
            client.headers["x-model"] = client.get("/v1/models").json()["data"][0]["id"]
            yield client
    finally:
        process.terminate()
        process.wait()


def machine() -> dict[str, object]:
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        **{package: version(package) for package in ("torch", "transformers", "millm")},
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def page(result: dict[str, Any]) -> str:
    machine_facts = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    return f"""# What steering and watching cost

Time per token of a streamed chat answer on the demo model, over that of a server without any SAE: {result["what"]}.
Made by `python benchmarks/overhead.py` (`make bench`); the figures are in `results/overhead.json`.

{table(result)}

Machine: {machine_facts}.
"""


def table(result: dict[str, Any]) -> str:
    lines = ["| | × base | 95 % interval | tokens/s |", "|---|---|---|---|"]
    for name, row in result["modes"].items():
        low, high = row["interval_95"]
        lines.append(f"| {name} | {row['ratio']:.3f} | {low:.3f}-{high:.3f} | {row['tokens_per_second']} |")
    first = result["first_token_ms"]
    return "\n".join([*lines, f"\nFirst token: {first['p50']} ms (median), {first['p95']} ms (95th percentile)"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--home", default=str(Settings.load().home_folder), help="where the demo model is kept")
    return parser.parse_args()


if __name__ == "__main__":
    main()
