"""Library use: SAEs beside one's own Transformers model, in a notebook or a script (docs/python.md).

The tables, formulas and refusals are the server's; nothing in the server knows this room.
"""

from millm.notebook.sae import SAE
from millm.notebook.steering import Effect, steered
from millm.notebook.watch import Row, Seen, watching

__all__ = ["SAE", "Effect", "Row", "Seen", "steered", "watching"]
