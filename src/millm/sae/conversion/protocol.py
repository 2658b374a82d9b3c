"""What passes between the server and the process that converts an SAE. Imports no torch."""

from typing import Literal

import msgspec

ConversionFormat = Literal[
    "dictionary_learning",
    "llama_scope",
    "llama_scope_r1_distill",
    "qwen_scope",
    "sparsify",
    "torch_linear",
    "mwhanna",
    "connor_rob",
]


class ConversionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One SAE to convert."""

    format: ConversionFormat
    source: str
    """The folder of its files."""
    files: tuple[str, ...]
    """Of it, inside that folder: the weights first."""
    target: str
    """An empty folder to write to."""
    name: str
    """`owner/name/path/inside`: what some formats say nowhere else is in it."""
    model: str | None
    """The Hugging Face id of the model that it was trained on, where that is known."""
    input_scale: float | None
    """What its activations were multiplied by in training, where that is known."""
    memory_limit: int | None = None
    """Bytes of data that the process may hold."""


class ConversionEvent(msgspec.Struct, frozen=True):
    """A line of what the process tells: a stage that begins, what is wrong, or (neither) that it is done."""

    stage: str = ""
    problem: str = ""
