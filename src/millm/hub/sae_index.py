"""The catalogue of public SAEs as one small file in the package: its format, and how it is read.

`tools/build_sae_index.py` makes it of SAELens' `pretrained_saes.yaml` (MIT, see NOTICE). It says what and where an SAE
is as far as the catalogue does; what nobody wrote down is None.
"""

import lzma
from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec

INDEX_FILE = "sae_index.json.xz"

Site = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "hook_z", "transcoder", "embed"]


class SaeRelease(msgspec.Struct, frozen=True, array_like=True):
    """SAEs that were published together."""

    name: str
    """In SAELens' catalogue."""
    repository: str
    model: str
    """As the catalogue calls it."""
    format: str
    """`saelens`, `gemma_scope`, `gemma_scope_2`, or what has to be converted."""


class SaeRecord(msgspec.Struct, frozen=True, array_like=True):
    """One SAE: a place in a repository, which several releases may list."""

    releases: tuple[int, ...]
    """Places in `Index.releases`; the first decides."""
    ids: tuple[str, ...]
    """SAELens' id in each release; empty: the path."""
    path: str
    layer: int | None
    site: Site
    width: int | None
    l0: float | None
    neuronpedia: str | None
    input_scale: float | None
    """It was trained on activations times this."""


class SaeIndex(msgspec.Struct, frozen=True):
    source: str
    """What it was made of, and which version."""
    releases: list[SaeRelease]
    saes: list[SaeRecord]


@cache
def load_index() -> SaeIndex:
    """Read once, in about 40 ms."""
    return unpack_index(files("millm.hub").joinpath(INDEX_FILE).read_bytes())


def pack_index(content: SaeIndex) -> bytes:
    return lzma.compress(msgspec.json.encode(content), preset=9 | lzma.PRESET_EXTREME)


def unpack_index(data: bytes) -> SaeIndex:
    return msgspec.json.decode(lzma.decompress(data), type=SaeIndex)
