"""Library use: SAEs beside one's own Transformers model, in a notebook or a script (docs/python.md).

The tables, formulas and refusals are the server's; nothing in the server knows this room.
"""

from millm.notebook.blocks import Effect, Row, Seen, steered, watching
from millm.notebook.sae import SAE

__all__ = ["SAE", "Effect", "Row", "Seen", "steered", "watching"]
