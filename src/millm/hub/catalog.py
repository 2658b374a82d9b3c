"""The catalogue of public SAEs: a small file in the package, searched offline.

`tools/build_sae_index.py` builds it from SAELens' `pretrained_saes.yaml` (MIT, see NOTICE). An SAE's id is the one that
`POST /api/saes` downloads: `owner/name/path/inside`. What the source does not state is None.
"""

import lzma
import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec

from millm.hub.entries import hugging_face_id, parameters_from_name
from millm.sae.base_models import is_same_model, model_mismatch

INDEX_FILE = "sae_index.json.xz"
Site = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "hook_z", "transcoder", "embed"]


class SaeRelease(msgspec.Struct, frozen=True, array_like=True):
    """SAEs that were published together."""

    name: str
    """The name in SAELens' catalogue."""
    repository: str
    model: str
    """The name in SAELens' catalogue, often a short one."""
    format: str
    """`saelens`, `gemma_scope`, `gemma_scope_2`, or a format that has to be converted."""


class SaeRecord(msgspec.Struct, frozen=True, array_like=True):
    """One SAE: a path in a repository, which several releases may list."""

    releases: tuple[int, ...]
    """Indices into `SaeIndex.releases`; the first decides."""
    ids: tuple[str, ...]
    """SAELens' id in each release; empty where it is the path."""
    path: str
    layer: int | None
    site: Site
    width: int | None
    l0: float | None
    neuronpedia: str | None
    input_scale: float | None
    """The factor on the activations in training."""


class SaeIndex(msgspec.Struct, frozen=True):
    source: str
    """Name and version of the source."""
    releases: list[SaeRelease]
    saes: list[SaeRecord]


@cache
def load_index() -> SaeIndex:
    """Loads once, in about 40 ms."""
    return unpack_index(files("millm.hub").joinpath(INDEX_FILE).read_bytes())


def pack_index(content: SaeIndex) -> bytes:
    return lzma.compress(msgspec.json.encode(content), preset=9 | lzma.PRESET_EXTREME)


def unpack_index(data: bytes) -> SaeIndex:
    return msgspec.json.decode(lzma.decompress(data), type=SaeIndex)


Support = Literal["read", "converted", "no"]
"""Read as published; converted by `millm pull`; not supported."""
SITES: tuple[Site, ...] = (
    "resid_post", "resid_pre", "resid_mid", "mlp_out", "attn_out", "hook_z", "transcoder", "embed",
)  # fmt: skip
"""By rank in search results."""
_NATIVE_FORMATS = ("saelens", "gemma_scope", "gemma_scope_2")
_UNSUPPORTED_FORMATS = ("temporal", "clt")
"""`temporal` needs the context of all tokens, a `clt` spans several layers."""
_HOOK_TEMPLATES: dict[str, str | None] = {
    "hook_z": "blocks.{}.attn.hook_z",
    "embed": "hook_embed",
    "transcoder of gemma_scope": "blocks.{}.ln2.hook_normalized",
    "transcoder of gemma_scope_2": "layers.{}.pre_feedforward_layernorm.output",
    "transcoder of mwhanna": "blocks.{}.mlp.hook_in",
    "transcoder of clt": None,
}
"""For sites whose hook has another name. TransformerLens has none for Gemma Scope 2's; this is transformers' name."""
_COMMON_WIDTHS = (16384, 32768, 65536, 24576, 131072)
_TYPICAL_L0 = 70.0
"""Few enough active features to read, enough to explain: Gemma Scope's canonical ones are nearest to 100."""


class RegistrySae(msgspec.Struct, frozen=True, kw_only=True):
    """A public SAE; None for what the catalogue does not state."""

    id: str
    """`owner/name/path/inside`."""
    repository: str
    path: str
    releases: tuple[str, ...]
    """SAELens' names of the releases that list it."""
    model: str | None
    """The Hugging Face id of the model it was trained on."""
    layer: int | None
    site: Site
    hook_point: str | None
    """As attaching expects it, e.g. `blocks.12.hook_resid_post`."""
    width: int | None
    """Features."""
    l0: float | None
    """The mean number of active features at a token, by the publisher's count."""
    neuronpedia: str | None
    """A link to Neuronpedia's page."""
    format: str
    support: Support


class RegistryPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of search results."""

    total: int
    saes: tuple[RegistrySae, ...]


class RegistryModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model with public SAEs."""

    id: str
    """`owner/name` on Hugging Face."""
    parameters: float | None
    """The size in its name."""
    saes: int
    layers: tuple[int, ...]
    widths: tuple[int, ...]
    sites: tuple[Site, ...]


def search_saes(
    *,
    model: str | None = None,
    layer: int | None = None,
    site: str | None = None,
    width: int | None = None,
    most_l0: float | None = None,
    text: str = "",
    limit: int = 50,
    offset: int = 0,
) -> RegistryPage:
    """SAEs by rank: exact model, residual stream, common width, Neuronpedia's choice, usual L0.

    `model` is a Hugging Face id or a short name; SAEs of its base or tuned versions are included. `text`: words that
    must all be in the repository, the path or a release's name. `most_l0` excludes SAEs of unknown L0.
    """
    words = text.lower().split()
    saes = [
        sae
        for sae in load_index().saes
        if (layer is None or sae.layer == layer)
        and (site is None or sae.site == site)
        and (width is None or sae.width == width)
        and (most_l0 is None or (sae.l0 is not None and sae.l0 <= most_l0))
        and (model is None or _release(sae).model in _related_models(model))
        and (not words or all(word in _search_text(sae) for word in words))
    ]
    saes.sort(key=lambda sae: _rank(sae, model))
    return RegistryPage(total=len(saes), saes=tuple(_to_registry_sae(sae) for sae in saes[offset : offset + limit]))


def find_sae(sae_id: str) -> RegistrySae | None:
    """By `owner/name/path/inside`; a revision (`@…`) is ignored."""
    sae = _find_record(sae_id)
    return None if sae is None else _to_registry_sae(sae)


def input_scale(sae_id: str) -> float | None:
    """The factor on the activations in training, for SAEs whose files do not state it."""
    sae = _find_record(sae_id)
    return None if sae is None else sae.input_scale


def count_saes(model_id: str) -> int:
    """The number of SAEs that `search_saes(model=model_id)` finds."""
    return sum(_release(sae).model in _related_models(model_id) for sae in load_index().saes)


def neuronpedia_link(sae_id: str, feature: int | None = None) -> str | None:
    """The page of an SAE or of one of its features; None where the catalogue has no id (ids are never guessed)."""
    sae = _find_record(sae_id)
    link = None if sae is None else _neuronpedia_url(sae)
    return link if link is None or feature is None else f"{link}/{feature}"


def neuronpedia_id(sae_id: str) -> str | None:
    """Neuronpedia's `model/layer-source`; None where the catalogue has none."""
    sae = _find_record(sae_id)
    return None if sae is None else sae.neuronpedia


def find_by_neuronpedia_id(name: str) -> RegistrySae | None:
    """By Neuronpedia's `model/layer-source`; None unless exactly one SAE has it."""
    saes = _records_by_neuronpedia_id().get(name, [])
    return _to_registry_sae(saes[0]) if len(saes) == 1 else None


@cache
def _records_by_neuronpedia_id() -> dict[str, list[SaeRecord]]:
    records: dict[str, list[SaeRecord]] = {}
    for sae in load_index().saes:
        if sae.neuronpedia:
            records.setdefault(sae.neuronpedia, []).append(sae)
    return records


@cache
def list_models() -> tuple[RegistryModel, ...]:
    """Models with SAEs, the smallest first."""
    by_model: dict[str, list[SaeRecord]] = {}
    for sae in load_index().saes:
        if known := hugging_face_id(_release(sae).model):
            by_model.setdefault(known, []).append(sae)
    models = [_summarize_model(model, saes) for model, saes in by_model.items()]
    return tuple(sorted(models, key=lambda model: (model.parameters or math.inf, model.id)))


def _summarize_model(model: str, saes: Sequence[SaeRecord]) -> RegistryModel:
    sites = {sae.site for sae in saes}
    return RegistryModel(
        id=model,
        parameters=parameters_from_name(model),
        saes=len(saes),
        layers=tuple(sorted({sae.layer for sae in saes if sae.layer is not None})),
        widths=tuple(sorted({sae.width for sae in saes if sae.width is not None})),
        sites=tuple(site for site in SITES if site in sites),
    )


@cache
def _records_by_id() -> dict[str, SaeRecord]:
    return {f"{_release(sae).repository}/{sae.path}": sae for sae in load_index().saes}


def _find_record(sae_id: str) -> SaeRecord | None:
    return _records_by_id().get(sae_id.partition("@")[0])


def _release(sae: SaeRecord) -> SaeRelease:
    return load_index().releases[sae.releases[0]]


@cache
def _related_models(model: str) -> frozenset[str]:
    """The catalogue's names of the model, its base and its tuned versions."""
    return frozenset(
        name for name in {release.model for release in load_index().releases} if is_same_model(name, model)
    )


def _search_text(sae: SaeRecord) -> str:
    releases = [load_index().releases[number] for number in sae.releases]
    return " ".join((*(release.name for release in releases), releases[0].repository, sae.path)).lower()


def _rank(sae: SaeRecord, model: str | None) -> tuple[object, ...]:
    width = _COMMON_WIDTHS.index(sae.width) if sae.width in _COMMON_WIDTHS else len(_COMMON_WIDTHS)
    return (
        model is not None and model_mismatch(_release(sae).model, model) is not None,
        _support(_release(sae).format) == "no",
        SITES.index(sae.site),
        width,
        sae.neuronpedia is None,
        abs(math.log((sae.l0 or 1) / _TYPICAL_L0)) > math.log(2),
        parameters_from_name(hugging_face_id(_release(sae).model) or "") or math.inf,
        -1 if sae.layer is None else sae.layer,
        abs(math.log((sae.l0 or 1) / _TYPICAL_L0)),
        sae.path,
    )


def _to_registry_sae(sae: SaeRecord) -> RegistrySae:
    release = _release(sae)
    return RegistrySae(
        id=f"{release.repository}/{sae.path}",
        repository=release.repository,
        path=sae.path,
        releases=tuple(load_index().releases[number].name for number in sae.releases),
        model=hugging_face_id(release.model),
        layer=sae.layer,
        site=sae.site,
        hook_point=_hook_point(sae, release.format),
        width=sae.width,
        l0=sae.l0,
        neuronpedia=_neuronpedia_url(sae),
        format=release.format,
        support=_support(release.format),
    )


def _hook_point(sae: SaeRecord, format: str) -> str | None:
    usual = _HOOK_TEMPLATES.get(sae.site, f"blocks.{{}}.hook_{sae.site}")
    named = _HOOK_TEMPLATES.get(f"{sae.site} of {format}", usual)
    return named and named.format(sae.layer)


def _neuronpedia_url(sae: SaeRecord) -> str | None:
    return f"https://www.neuronpedia.org/{sae.neuronpedia}" if sae.neuronpedia else None


def _support(format: str) -> Support:
    return "read" if format in _NATIVE_FORMATS else "no" if format in _UNSUPPORTED_FORMATS else "converted"
