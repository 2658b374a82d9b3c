"""Paths of the figures and of the pages that show them. Knows no model."""

from pathlib import Path

from millm.demo import bundle
from tools.efficacy.card import card
from tools.efficacy.figures import Figures
from tools.efficacy.page import page
from tools.efficacy.plot import plot

DOCS = Path(__file__).parents[2] / "docs"
DEMO = bundle.PROFILES_FOLDER.parent
MEASUREMENTS = DEMO / "measurements.json"
MODEL_CARD = DEMO / "MODEL_CARD.md"
CARD_HEAD = DEMO / "model_card_head.md"


def pages(result: Figures) -> dict[Path, str]:
    """File → text."""
    return {
        MODEL_CARD: card(CARD_HEAD.read_text("utf-8"), result),
        DOCS / "efficacy.md": page(result),
        DOCS / "efficacy.svg": plot(result),
    }
