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
    """`source` is the folder of the SAE's files, `target` an empty folder."""

    format: ConversionFormat
    source: str
    files: tuple[str, ...]
    """Paths within `source`, the weights first."""
    target: str
    name: str
    """`owner/name/path/inside`; some formats encode settings in it."""
    model: str | None
    """Hugging Face id of the model that the SAE was trained on, if known."""
    input_scale: float | None
    """Factor of the activations in training, if known."""
    memory_limit: int | None = None
    """In bytes, for the data of the process."""


class ConversionEvent(msgspec.Struct, frozen=True):
    """A line of the process's output: a stage that starts, a problem, or (neither) completion."""

    stage: str = ""
    problem: str = ""
