"""The short bundled text that every SAE is calibrated on. No torch: the API process tokenises it."""

from importlib.resources import files


def calibration_text() -> list[str]:
    """Paragraphs of varied, neutral prose, about 250 tokens in all; each is a text with its own BOS."""
    return files("millm.sae").joinpath("calibration.txt").read_text(encoding="utf-8").strip().split("\n\n")
