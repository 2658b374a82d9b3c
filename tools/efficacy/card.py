"""The demo's model card: a fixed head, and the measured effect of its profiles."""

from tools.efficacy.figures import Figures, at


def card(head: str, result: Figures) -> str:
    profiles: dict[str, Figures] = result["profiles"]
    return "\n".join(
        [
            head.rstrip(),
            "",
            how(result),
            "",
            "| profile | effect is the share of | base | steered | asked | steered − base, 95 % |"
            " perplexity base / steered / asked | repetition base / steered / asked |",
            "|---|---|---|---|---|---|---|---|",
            *(_row(name, found) for name, found in profiles.items()),
            "",
            "More and less of each, and what a system prompt costs: [efficacy](../../../docs/efficacy.md).",
            "",
            "Steered answers to the first prompts, as they came:",
            "",
            *(f"- **{name}**: {_example(found)}" for name, found in profiles.items()),
            "",
        ]
    )


def how(result: Figures) -> str:
    """How it was measured, in a sentence or two."""
    sampling = result["sampling"]
    seeds = len(sampling["seeds"])
    return (
        f"{len(result['prompts'])} questions × {seeds} seed{'s' * (seeds > 1)}, {sampling['new_tokens']} tokens each,"
        f" temperature {sampling['temperature']}, top-p {sampling['top_p']}. *Effect* is the share named in the second"
        " column; *asked* is the base model with a system prompt that asks for the same; perplexity is under the"
        " unsteered model; repetition is the share of repeated 3-word sequences."
    )


def _row(name: str, found: Figures) -> str:
    ways = [found["base"], at(found, 1.0), found["asked"]]
    low, high = ways[1]["minus_base_95"]
    effects = " | ".join(f"{way['effect']:.3f}" for way in ways)
    perplexities = " / ".join(f"{way['perplexity']:.1f}" for way in ways)
    repetitions = " / ".join(f"{way['repetition']:.2f}" for way in ways)
    return f"| {name} | {found['shows_as']} | {effects} | {low:.3f} to {high:.3f} | {perplexities} | {repetitions} |"


def _example(found: Figures) -> str:
    return " ".join(found["examples"][0].split()).replace("|", "\\|")
