"""Messages between the server and the process that converts an SAE. Imports no torch."""

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
    """Folder of the SAE's files."""
    files: tuple[str, ...]
    """Paths within `source`, the weights first."""
    target: str
    """An empty folder to write to."""
    name: str
    """`owner/name/path/inside`; some formats encode settings in it."""
    model: str | None
    """Hugging Face id of the model that the SAE was trained on, if known."""
    input_scale: float | None
    """Factor of the activations in training, if known."""
    memory_limit: int | None = None
    """Bytes of data for the process."""


class ConversionEvent(msgspec.Struct, frozen=True):
    """A line of the process's output: a stage that starts, a problem, or (neither) completion."""

    stage: str = ""
    problem: str = ""
