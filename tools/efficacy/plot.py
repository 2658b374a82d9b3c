"""`docs/efficacy.svg`: effect and perplexity of every profile by multiple of its strengths, as small multiples.

A few lines of SVG of our own: readable on light and dark pages, with no library to draw it.
"""

import math
from collections.abc import Sequence

from tools.efficacy.figures import Figures

COLUMNS, WIDE, HIGH = 4, 230, 190
LEFT, TOP, PLOT_WIDE, PLOT_HIGH = 34, 34, 164, 108
MOST_MULTIPLE = 2.0
PERPLEXITIES = (1.0, 100.0)
"""Its axis, on the right, is one of logarithms."""

STYLE = """\
text { font: 11px system-ui, sans-serif; fill: #333 } .name { font-weight: 600; font-size: 13px }
.axis { stroke: #999; fill: none } .own { stroke: #999; stroke-dasharray: 2 3 }
.effect { stroke: #0b6fa4; fill: none; stroke-width: 2 } .perplexity { stroke: #b3471d; fill: none; stroke-width: 2 }
.prompted { stroke: #0b6fa4; stroke-dasharray: 5 4; fill: none } .effect-text { fill: #0b6fa4 }
.perplexity-text { fill: #b3471d }
@media (prefers-color-scheme: dark) {
text { fill: #ddd } .axis, .own { stroke: #777 } .effect, .prompted { stroke: #5db8e8 } .perplexity { stroke: #f08a5d }
.effect-text { fill: #5db8e8 } .perplexity-text { fill: #f08a5d } }
"""


def plot(result: Figures) -> str:
    profiles: dict[str, Figures] = result["profiles"]
    rows = math.ceil(len(profiles) / COLUMNS)
    wide, high = COLUMNS * WIDE, rows * HIGH + 24
    panels = [
        f'<g transform="translate({place % COLUMNS * WIDE} {place // COLUMNS * HIGH})">{_panel(name, found)}</g>'
        for place, (name, found) in enumerate(profiles.items())
    ]
    legend = (
        f'<text x="{LEFT}" y="{high - 8}"><tspan class="effect-text">blue, left: effect (dashed: the system prompt)'
        '</tspan>   <tspan class="perplexity-text">red, right: perplexity, logarithmic</tspan>'
        "   below: multiple of the profile's strengths; dotted: its own</text>"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" role="img">',
            "<title>Effect and perplexity of every demo profile, by multiple of its strengths</title>",
            f"<style>{STYLE}</style>",
            *panels,
            legend,
            "</svg>",
            "",
        ]
    )


def _panel(name: str, found: Figures) -> str:
    doses = [(0.0, found["base"]), *((one["multiple"], one) for one in found["steered"])]
    most = _ceiling(max(one["effect"] for one in (found["asked"], *(one for _, one in doses))))
    effects = [(_x(multiple), _y(one["effect"] / most)) for multiple, one in doses]
    perplexities = [(_x(multiple), _y(_log_share(one["perplexity"]))) for multiple, one in doses]
    prompted = _y(found["asked"]["effect"] / most)
    right, bottom = LEFT + PLOT_WIDE, TOP + PLOT_HIGH
    return "".join(
        [
            f'<text class="name" x="{LEFT}" y="{TOP - 14}">{name}</text>',
            f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}V{TOP}"/>',
            f'<path class="own" d="M{_x(1.0):.1f} {TOP}V{bottom}"/>',
            f'<path class="prompted" d="M{LEFT} {prompted:.1f}H{right}"/>',
            f'<polyline class="perplexity" points="{_points(perplexities)}"/>',
            f'<polyline class="effect" points="{_points(effects)}"/>',
            *_labels(most, right, bottom),
        ]
    )


def _labels(most: float, right: int, bottom: int) -> Sequence[str]:
    low, high = PERPLEXITIES
    return [
        f'<text class="effect-text" text-anchor="end" x="{LEFT - 4}" y="{TOP + 8}">{most:g}</text>',
        f'<text class="effect-text" text-anchor="end" x="{LEFT - 4}" y="{bottom}">0</text>',
        f'<text class="perplexity-text" x="{right + 4}" y="{TOP + 8}">{high:g}</text>',
        f'<text class="perplexity-text" x="{right + 4}" y="{bottom}">{low:g}</text>',
        *(
            f'<text text-anchor="middle" x="{_x(multiple):.1f}" y="{bottom + 14}">{multiple:g}</text>'
            for multiple in (0.0, 0.5, 1.0, 1.5, 2.0)
        ),
    ]


def _ceiling(effect: float) -> float:
    """A round number that is not smaller."""
    return next(round_ for round_ in (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0) if round_ >= effect)


def _log_share(perplexity: float) -> float:
    low, high = PERPLEXITIES
    return math.log(min(max(perplexity, low), high) / low) / math.log(high / low)


def _x(multiple: float) -> float:
    return LEFT + PLOT_WIDE * multiple / MOST_MULTIPLE


def _y(share: float) -> float:
    return TOP + PLOT_HIGH * (1 - share)


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
