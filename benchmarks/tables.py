"""The committed figures as Markdown: benchmarks/README.md, and the short table in README.md. Measures nothing."""

import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

Results = Mapping[str, Any]
"""Benchmark → content of its file; missing if it was not run."""

_BLOCK = re.compile(r"(<!-- performance: [^>]*-->\n).*?(<!-- /performance -->)", re.DOTALL)
_HEAD = """\
<!-- Written by tools/make_docs.py from results/*.json; do not edit. -->
# Benchmarks
"""
_LEAD = """\
All on the demo model (SmolLM2-135M-Instruct, on the CPU) where nothing else is said, through a real server on loopback,
one program at work at a time. What is compared is measured in turn, there and back, within one run; intervals are
bootstrap 95 % intervals of the median over the blocks. `make bench` measures everything again; `millm bench` measures a
server of your own."""
_INT8 = {"off": "fp32", "auto": "as it comes"}
"""MILLM_CPU_INT8 → display name."""


def read(folder: Path = RESULTS) -> Results:
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}


def with_summary(readme: str, results: Results) -> str:
    """`readme` with a new table between its marks."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{summary(results)}\n{found[2]}", readme)


def summary(results: Results) -> str:
    """The main figures, and the machine they were measured on."""
    rows = [*_overhead_rows(results), *_throughput_rows(results)]
    measured = [results[name] for name in ("overhead", "throughput") if name in results]
    machine = next((_machine(found) for found in measured), "no machine yet")
    told = f"On {machine}. `millm bench` measures yours. [How, and others beside it](benchmarks/README.md)"
    return f"{table(('demo model', 'measured', '95 % interval'), rows)}\n{_paragraph(told)}"


def page(results: Results) -> str:
    """All figures."""
    parts = [
        _section(results, "overhead", "What steering and watching cost", _overhead),
        _section(results, "throughput", "Tokens per second, start and memory", _throughput),
        _section(results, "peers", "Beside others", _peers),
        _section(results, "gpu", "On a GPU", _gpu),
    ]
    return "\n".join([_HEAD, _paragraph(_LEAD), *parts])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _section(results: Results, name: str, title: str, body: Any) -> str:
    made_by = f"`python -m benchmarks.{name}`"
    if name not in results:
        return f"## {title}\n\nNot measured yet: {made_by}.\n"
    found = results[name]
    told = f"{made_by}: {found['what']}. On {_machine(found)}."
    return f"## {title}\n\n{_paragraph(told)}\n{body(found)}"


def _paragraph(text: str) -> str:
    return textwrap.fill(text, width=120, break_long_words=False, break_on_hyphens=False) + "\n"


def _overhead(found: Any) -> str:
    rows = [
        (name, f"{row['ratio']:.3f}", _interval(row), str(row["tokens_per_second"]), str(row["base_tokens_per_second"]))
        for name, row in _measured(found["modes"])
    ]
    head = ("", "× base", "95 % interval", "tokens/s", "base tokens/s")
    return (
        f"Time per token of a streamed chat answer over that of a server without any SAE.\n\n{table(head, rows)}"
        f"{_not_run(found['modes'])}\n"
        f"First token of a short prompt, in ms (p50 / p95): {_wait(found['first_token_ms'])}.\n"
    )


def _throughput(found: Any) -> str:
    levels = [
        (_INT8[int8], *_level(level)) for int8, found_levels in _measured(found["levels"]) for level in found_levels
    ]
    head = ("", "readers", "tokens/s", "first token ms (p50 / p95)", "between tokens ms (p50 / p95)", "errors")
    starts = [
        (_INT8[int8], f"{row['ready_seconds']:.1f}", f"{row['ready_seconds_without_sae']:.1f}", _peak(found, int8))
        for int8, row in _measured(found["starts"])
    ]
    start_head = ("", "seconds from start to ready", "without the SAE", "engine's peak memory")
    return (
        f"Prompts of about 32, 128 and 512 tokens, as `millm bench` asks them.\n\n{table(head, levels)}\n"
        f"{_against(found['against_generate'])}\n{table(start_head, starts)}"
    )


def _against(found: Any) -> str:
    rows = [
        (name, _INT8[int8], f"{row[int8]['ratio']:.2f}", _interval(row[int8], 2), str(row[int8]["tokens_per_second"]),
         str(row["generate"]["tokens_per_second"]), str(row[int8]["blocks"]))
        for name, row in _measured(found) for int8 in _INT8
    ]  # fmt: skip
    head = ("prompts", "", "× `generate`", "95 % interval", "tokens/s", "`generate` tokens/s", "blocks")
    return (
        "Eight at once, over plain transformers `generate` (fp32) with the same eight one after another:\n\n"
        f"{table(head, rows)}{_not_run(found)}"
    )


def _peers(found: Any) -> str:
    rows = [(peer["what"], _versions(peer), *_peer(peer["levels"])) for peer in found["peers"].values()]
    head = ("", "versions", "tokens/s, one reader", "tokens/s, 8 at once", "first token ms, one reader (p50 / p95)")
    return f"Each alone on the machine, one after another.\n\n{table(head, rows)}"


def _gpu(found: Any) -> str:
    runs = {name: found[name] for name in ("graphs-off", "graphs-auto", "8bit", "4bit") if name in found}
    speeds = [
        (name, run["runner"]["runner"], run["runner"]["weights"], *_level(level))
        for name, run in runs.items()
        for level in run["levels"]
    ]
    head = ("", "runner", "weights", "readers", "tokens/s", "first token ms (p50 / p95)",
            "between tokens ms (p50 / p95)", "errors")  # fmt: skip
    costs = [
        (name, mode, f"{row['ratio']:.3f}", _interval(row), str(row["tokens_per_second"]),
         str(row["base_tokens_per_second"]))
        for name, run in runs.items() for mode, row in run.get("modes", {}).items() if "ratio" in row
    ]  # fmt: skip
    cost_head = ("", "", "× base", "95 % interval", "tokens/s", "base tokens/s")
    return (
        "The prompts of `millm bench` at a token per byte, 150 to 2,500 tokens; steered by one feature.\n\n"
        f"{table(head, speeds)}\n"
        f"Time per token of one reader over that of a server without any SAE.\n\n{table(cost_head, costs)}"
    )


def _versions(peer: Any) -> str:
    return peer["versions"] if isinstance(peer["versions"], str) else ""


def _peer(levels: Any) -> tuple[str, str, str]:
    if "not_run" in levels:
        return f"not run: {levels['not_run']}", "", ""
    by_readers = {level["concurrency"]: level for level in levels}
    eight = _speed(by_readers[8]) if 8 in by_readers else "one at a time"
    return _speed(by_readers[1]), eight, _wait(by_readers[1].get("first_token_ms"))


def _speed(level: Any) -> str:
    failed = f" ({level['errors']} of {level['requests']} failed)" if level["errors"] else ""
    return f"{level['tokens_per_second'] or '-'}{failed}"


def _level(level: Any) -> tuple[str, ...]:
    waits = [_wait(level[name]) for name in ("first_token_ms", "inter_token_ms")]
    return str(level["concurrency"]), _speed(level), *waits, str(level["errors"])


def _wait(spread: Any) -> str:
    return f"{spread['p50']:,.0f} / {spread['p95']:,.0f}" if spread else "-"


def _overhead_rows(results: Results) -> list[tuple[str, str, str]]:
    found = results.get("overhead")
    if not found:
        return []
    named = {"add-1": "steering one feature", "watch-32": "watching 32 features", "watch-32+add": "both"}
    modes = dict(_measured(found["modes"]))
    costs = [
        (f"time per token, {name}", f"× {modes[mode]['ratio']:.3f}", _interval(modes[mode]))
        for mode, name in named.items()
        if mode in modes
    ]
    return [*costs, ("first token of a short prompt, ms (p50 / p95)", _wait(found["first_token_ms"]), "")]


def _throughput_rows(results: Results) -> list[tuple[str, str, str]]:
    found = results.get("throughput", {})
    levels = dict(_measured(found.get("levels", {}))).get("auto", [])
    against = dict(_measured(found.get("against_generate", {})))
    readers = {1: "one reader", 8: "8 readers at once", 32: "32 readers at once"}
    speeds = [(f"tokens/s, {readers[row['concurrency']]}", _speed(row), "") for row in levels]
    ratios = [
        (f"8 at once over `generate` in sequence, {name} prompts", f"× {row['auto']['ratio']:.1f}",
         _interval(row["auto"], 1))
        for name, row in against.items()
    ]  # fmt: skip
    return [*speeds, *ratios]


def _peak(found: Any, int8: str) -> str:
    peaks = dict(_measured(found.get("peak_mb", {})))
    return f"{peaks[int8]['engine']:,} MB" if int8 in peaks else "-"


def _measured(sections: Any) -> list[tuple[str, Any]]:
    return [(name, found) for name, found in sections.items() if "not_run" not in found]


def _not_run(sections: Any) -> str:
    return "".join(
        f"\n{name} was not measured: {found['not_run']}.\n" for name, found in sections.items() if "not_run" in found
    )


def _interval(row: Any, digits: int = 3) -> str:
    low, high = row["interval_95"]
    return f"{low:.{digits}f}-{high:.{digits}f}"


def _machine(found: Any) -> str:
    facts = found["machine"]
    versions = ", ".join(f"{package} {facts[package]}" for package in ("torch", "transformers", "millm"))
    gpus = "".join(f"{gpu}, " for gpu in facts.get("gpus", ()))
    load = f"load average {facts['load_average'][0]} at the start"
    return f"{gpus}{facts['cores']} cores ({facts['cpu']}), {versions}, {load}"
