"""How a preparation tells the terminal how far it is."""

from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]
"""(stage, done, total): stage is `download` or `convert`, the rest bytes."""
