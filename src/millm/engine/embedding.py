"""One text → one vector of unit length: its whole forward pass alone, its last hidden states pooled.

No batch, no chunks, no cache: the vector depends on the text and nothing else (docs/decisions/0010). SAEs watch it and
never steer it.
"""

import inspect

import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine.messages import Embed, Pooling, TextEmbedded
from millm.engine.scheduler import ScheduledRow
from millm.engine.sequence import Sequence
from millm.engine.taps import AttachedSaes
from millm.errors import NonFiniteOutput
from millm.sae.hooks import CausalModel


def embed(model: PreTrainedModel, attached_saes: AttachedSaes, text: Sequence, command: Embed) -> TextEmbedded:
    """Raises NonFiniteOutput and what `Taps.start` raises.

    The caller gives back what `text` holds of the taps, also then.
    """
    attached_saes.start(text)
    row = ScheduledRow(text, 0, command.tokens)
    attached_saes.prepare((row,))
    vector = normalised(pooled(last_hidden_states(model, row.tokens), command.pooling))
    (readings,) = attached_saes.collect((row,))
    return TextEmbedded(id=command.id, vector=vector.cpu().numpy().astype("<f4").tobytes(), readings=readings)


@torch.inference_mode()
def last_hidden_states(model: CausalModel, tokens: tuple[int, ...]) -> Tensor:
    """What the last layer and the final norm make of one sequence, in float32  # [T, d]"""
    body = model.get_decoder()  # without the head: no [T, vocabulary] logits for nothing; an encoder is its own
    no_cache = {"use_cache": False} if "use_cache" in inspect.signature(body.forward).parameters else {}
    output = body(input_ids=torch.tensor([tokens], device=model.device), **no_cache)
    hidden: Tensor = output.last_hidden_state[0].float()
    return hidden


def pooled(hidden: Tensor, pooling: Pooling) -> Tensor:
    """`hidden [T, d]` → `[d]`, as sentence-transformers' Pooling of that name (github.com/huggingface)."""
    match pooling:
        case "mean":
            return hidden.mean(dim=0)
        case "cls":
            return hidden[0]
        case "lasttoken":
            return hidden[-1]
        case "max":
            return hidden.amax(dim=0)


def normalised(vector: Tensor) -> Tensor:
    """At length 1. Raises NonFiniteOutput."""
    if not bool(torch.isfinite(vector).all()):
        raise NonFiniteOutput("the model's hidden states are not finite numbers; load it with dtype float32")
    return torch.nn.functional.normalize(vector, dim=-1)
