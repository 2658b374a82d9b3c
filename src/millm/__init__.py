"""A local, OpenAI-compatible server that steers Hugging Face models with sparse autoencoders.

The library use, `from millm import SAE, steered, watching` (docs/python.md), is imported on first access, so that the
server's own processes and `millm --help` stay free of torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millm.errors import MillmError
    from millm.notebook import SAE, Effect, Row, Seen, steered, watching

__version__ = "0.1.0"

_MODULES = {
    "MillmError": "millm.errors",
    **dict.fromkeys(("SAE", "Effect", "Row", "Seen", "steered", "watching"), "millm.notebook"),
}

__all__ = ["SAE", "Effect", "MillmError", "Row", "Seen", "__version__", "steered", "watching"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
