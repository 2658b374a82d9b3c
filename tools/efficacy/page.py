"""`docs/efficacy.md`: tables of the effect of each profile at every strength, and of a system prompt."""

from collections.abc import Sequence

from tools.efficacy.card import how
from tools.efficacy.figures import Figures, at

NOTE = "<!-- Written by tools/efficacy from src/millm/demo/measurements.json; do not edit. -->"

LEAD = """\
What steering by features does to the demo model, in figures: how strong the effect is, what it costs in coherence, and
what a system prompt for the same effect would do and cost instead. The model is a toy of 135 million parameters
with a dictionary of 4,096 features; the figures say how the method behaves, not how well a large model writes.
"""

READING = """\
How to read the curves: the effect rises with the strength, and so does the perplexity; past some multiple the words are
still there and the sentences are not. Every profile ships with strengths chosen for a visible effect, some of them past
the comfortable point: `POST /api/calibrate` and `millm sweep` find a gentler one for the question at hand.
The 95 % intervals are bootstraps over the questions. Cliff's delta, from -1 to 1, says how much more often a steered
answer shows more of the effect than a base answer than it shows less. KL is KL(steered ‖ base) in nats, a mean over the
answers' tokens.
"""


def page(result: Figures) -> str:
    profiles: dict[str, Figures] = result["profiles"]
    return "\n".join(
        [
            NOTE,
            "# Efficacy",
            "",
            LEAD,
            how(result).replace("the second column", "the table"),
            "",
            f"Measured with torch {result['versions']['torch']} and transformers"
            f" {result['versions']['transformers']}; `make efficacy` does it again.",
            "",
            "![Effect and perplexity of every profile, by multiple of its strengths](efficacy.svg)",
            "",
            READING,
            "## Steering beside a system prompt",
            "",
            *_beside(profiles),
            "",
            _verdict(profiles),
            "",
            *(line for name, found in profiles.items() for line in _profile(name, found)),
        ]
    )


def _beside(profiles: dict[str, Figures]) -> Sequence[str]:
    return [
        "| profile | effect is the share of | base | steered | prompted | steered − prompted, 95 % | context tokens"
        " steered | context tokens prompted | of the prompt |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_beside_row(name, found) for name, found in profiles.items()),
    ]


def _beside_row(name: str, found: Figures) -> str:
    low, high = found["steered_minus_asked_95"]
    effects = " | ".join(f"{way['effect']:.3f}" for way in (found["base"], at(found, 1.0), found["asked"]))
    return (
        f"| {name} | {found['shows_as']} | {effects} | {low:.3f} to {high:.3f} | {found['steering_tokens']} |"
        f" {found['system_prompt_tokens']} | {found['system_prompt_share']:.0%} |"
    )


def _verdict(profiles: dict[str, Figures]) -> str:
    """In words, from the figures alone."""
    stronger = [name for name, found in profiles.items() if found["steered_minus_asked_95"][0] > 0]
    works = [name for name, found in profiles.items() if found["asked"]["minus_base_95"][0] > 0]
    gentle = [name for name, found in profiles.items() if _coherent(found)]
    return (
        f"Steering has the larger effect in {len(stronger)} of {len(profiles)} profiles (its interval above zero);"
        f" the system prompt has an effect beyond chance in {len(works)} ({', '.join(works) or 'none'}). Steering"
        " uses no context: the features are in no prompt. It costs coherence instead: at full strength the"
        f" perplexity stays under three times the base model's in {len(gentle)} of {len(profiles)}"
        f" ({', '.join(gentle) or 'none'})."
    )


def _coherent(found: Figures) -> bool:
    return bool(at(found, 1.0)["perplexity"] < 3 * found["base"]["perplexity"])


def _profile(name: str, found: Figures) -> Sequence[str]:
    features = ", ".join(f"feature {one['index']} at {one['strength']:g}" for one in found["features"])
    return [
        f"## {name}",
        "",
        f"{features}; the effect is the share of {found['shows_as']}. System prompt: “{found['system_prompt']}”",
        "",
        "| × strength | effect | − base, 95 % | Cliff's delta | perplexity | repetition | KL | answers |",
        "|---|---|---|---|---|---|---|---|",
        _row("0 (base)", found["base"]),
        *(_row(f"{one['multiple']:g}", one) for one in found["steered"]),
        _row("system prompt", found["asked"]),
        "",
    ]


def _row(name: str, one: Figures) -> str:
    interval = "{:.3f} to {:.3f}".format(*one["minus_base_95"]) if "minus_base_95" in one else "–"
    delta = f"{one['cliffs_delta']:.2f}" if "cliffs_delta" in one else "–"
    kl = f"{one['kl']:.2f}" if "kl" in one else "–"
    return (
        f"| {name} | {one['effect']:.3f} | {interval} | {delta} | {one['perplexity']:.1f} | {one['repetition']:.2f} |"
        f" {kl} | {one['answers']} |"
    )
