"""A checkpoint without a head that writes tokens (BERT and its kin): what it can do is tried out once, at load."""

from torch import nn
from transformers import PreTrainedModel

from millm.engine.embedding import last_hidden_states
from millm.errors import InvalidModel

UNUSED_WEIGHT_PREFIXES = ("pooler.",)
"""Weights that checkpoints without them can do without: a vector is pooled from the last hidden states."""


def check_encoder(model: PreTrainedModel) -> None:
    """Raises InvalidModel if a few tokens do not become as many hidden states of the width it says."""
    if getattr(model.config, "is_encoder_decoder", False):
        raise InvalidModel(f"{type(model).__name__} cannot embed: its decoder needs more than the text")
    width = model.config.get_text_config(decoder=True).hidden_size
    tokens = tuple(range(2, 7))
    try:
        shape = tuple(last_hidden_states(model, tokens).shape)
    except (TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise InvalidModel(f"{type(model).__name__} cannot embed plain text: {_encoder_error_line(error)}") from error
    if shape != (len(tokens), width):
        raise InvalidModel(f"{type(model).__name__} cannot embed: {len(tokens)} tokens give hidden states {shape}")


def max_encoder_positions(model: PreTrainedModel) -> int | None:
    """Tokens there is a learned position for, where padding takes the first of them (RoBERTa, MPNet); None elsewhere.

    Their configuration counts the others too, and a longer text would look up what is not there.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    return None


def _encoder_error_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
