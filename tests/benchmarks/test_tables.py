"""The tables show all results, and nothing for sections without a measurement."""

import copy
import json
from typing import Any

from benchmarks.tables import page, read, summary, with_summary

MACHINE = {"cpu": "Abacus", "cores": 2, "load_average": [0.5, 0, 0], "torch": "t", "transformers": "u", "millm": "v"}
WAIT = {"p50": 1234.5, "p95": 2000.0}


def level(concurrency: int, speed: float | None, **other: object) -> dict[str, object]:
    measured = {"errors": 0, "requests": 6, "first_token_ms": WAIT, "inter_token_ms": WAIT}
    return {"concurrency": concurrency, "tokens_per_second": speed, **measured, **other}


RATIO = {"ratio": 4.321, "interval_95": [4.1, 4.5], "blocks": 5, "tokens_per_second": 80.5, "output_tokens": 9}
RESULTS: dict[str, Any] = {
    "overhead": {
        "what": "three blocks", "machine": MACHINE, "first_token_ms": WAIT,
        "modes": {
            "add-1": {
                "ratio": 1.0123, "interval_95": [1.001, 1.02], "tokens_per_second": 17, "base_tokens_per_second": 17.2
            },
            "watch-32": {"not_run": "the server went away"},
        },
    },
    "throughput": {
        "what": "answers", "machine": MACHINE,
        "starts": {"off": {"ready_seconds": 12.34, "ready_seconds_without_sae": 9.0}, "auto": {"not_run": "no"}},
        "levels": {"off": [level(1, 11.0)], "auto": [level(1, 21.0), level(8, 81.0, errors=2, requests=16)]},
        "against_generate": {
            "short": {"generate": {"tokens_per_second": 18.6}, "off": {**RATIO, "ratio": 3.3}, "auto": RATIO},
            "mixed": {"not_run": "3 blocks failed"},
        },
        "peak_mb": {"off": {"server": 100, "engine": 1234}, "auto": {"server": 100, "engine": 900}},
    },
    "peers": {
        "what": "answers", "machine": MACHINE,
        "peers": {
            "generate": {
                "what": "transformers", "versions": "t 1",
                "levels": [{"concurrency": 1, "tokens_per_second": 18, "errors": 0}],
            },
            "llama.cpp": {"what": "llama", "versions": "", "levels": {"not_run": "--llama-python was not given"}},
            "millm": {"what": "miLLM", "versions": "m 2", "levels": [level(1, 20.0), level(8, None, errors=6)]},
        },
    },
}  # fmt: skip


def test_every_figure_is_on_the_page() -> None:
    shown = page(RESULTS)
    for line in (
        "| add-1 | 1.012 | 1.001-1.020 | 17 | 17.2 |",
        "watch-32 was not measured: the server went away.",
        "| fp32 | 1 | 11.0 | 1,234 / 2,000 | 1,234 / 2,000 | 0 |",
        "| as it comes | 8 | 81.0 (2 of 16 failed) | 1,234 / 2,000 | 1,234 / 2,000 | 2 |",
        "| short | as it comes | 4.32 | 4.10-4.50 | 80.5 | 18.6 | 5 |",
        "mixed was not measured: 3 blocks failed.",
        "| fp32 | 12.3 | 9.0 | 1,234 MB |",
        "| transformers | t 1 | 18 | one at a time | - |",
        "| llama |  | not run: --llama-python was not given |  |  |",
        "| miLLM | m 2 | 20.0 | - (6 of 6 failed) | 1,234 / 2,000 |",
    ):
        assert line in shown, shown


def test_the_summary_lists_measured_values_only() -> None:
    shown = summary(RESULTS)
    assert "| time per token, steering one feature | × 1.012 | 1.001-1.020 |" in shown
    assert "| 8 at once over `generate` in sequence, short prompts | × 4.3 | 4.1-4.5 |" in shown
    assert "| tokens/s, one reader | 21.0 |  |" in shown
    assert "watching" not in shown
    assert "mixed" not in shown
    assert "2 cores (Abacus)" in shown


def test_the_page_without_results_documents_the_command() -> None:
    assert page({}).count("Not measured yet: `python -m benchmarks.") == 4
    assert "time per token" not in summary({})


def test_the_summary_replaces_only_itself() -> None:
    readme = "Before.\n\n<!-- performance: here -->\nold\n<!-- /performance -->\n\nAfter.\n"
    once = with_summary(readme, RESULTS)
    assert once.startswith("Before.\n\n<!-- performance: here -->\n")
    assert once.endswith("<!-- /performance -->\n\nAfter.\n")
    assert "old" not in once
    assert with_summary(once, RESULTS) == once


def test_committed_results_can_be_rendered() -> None:
    """Rendering does not change the results."""
    results = read()
    before = copy.deepcopy(results)
    assert page(results)
    assert summary(results)
    assert json.dumps(results) == json.dumps(before)
