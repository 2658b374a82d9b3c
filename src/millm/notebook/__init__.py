"""Library use: SAEs on a Transformers model in a notebook or script (docs/python.md), with the server's arithmetic."""

from millm.notebook.blocks import Effect, Row, Seen, steered, watching
from millm.notebook.sae import SAE

__all__ = ["SAE", "Effect", "Row", "Seen", "steered", "watching"]
