"""The public SAEs: which there are for a model, where, how good, and what Neuronpedia calls them. Nothing is fetched.

An SAE goes by what `POST /api/saes` downloads it by: `owner/name/path/inside`. Sizes are read out of names.

The catalogue of public SAEs as one small file in the package: its format, and how it is read.

`tools/build_sae_index.py` makes it of SAELens' `pretrained_saes.yaml` (MIT, see NOTICE). It says what and where an SAE
is as far as the catalogue does; what nobody wrote down is None.
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


Support = Literal["read", "converted", "no"]
"""As it is; after a conversion that `millm pull` does by itself; not at all."""
SITES: tuple[Site, ...] = (
    "resid_post", "resid_pre", "resid_mid", "mlp_out", "attn_out", "hook_z", "transcoder", "embed",
)  # fmt: skip
"""The most useful first: that is their rank in what `search` finds."""
_NATIVE_FORMATS = ("saelens", "gemma_scope", "gemma_scope_2")
_UNSUPPORTED_FORMATS = ("temporal", "clt")
"""They need the whole context; they are one layer of something that is not an SAE of one."""
_HOOK_TEMPLATES: dict[str, str | None] = {
    "hook_z": "blocks.{}.attn.hook_z",
    "embed": "hook_embed",
    "transcoder of gemma_scope": "blocks.{}.ln2.hook_normalized",
    "transcoder of gemma_scope_2": "layers.{}.pre_feedforward_layernorm.output",
    "transcoder of mwhanna": "blocks.{}.mlp.hook_in",
    "transcoder of clt": None,
}
"""Where the site's name is not the hook's. Gemma Scope 2's is transformers' name: TransformerLens has none for it."""
_COMMON_WIDTHS = (16384, 32768, 65536, 24576, 131072)
_TYPICAL_L0 = 70.0
"""Few enough active features to look at, enough to mean something: Gemma Scope's canonical ones are nearest to 100."""


class RegistrySae(msgspec.Struct, frozen=True, kw_only=True):
    """A public SAE; what the catalogue does not say is None."""

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
    """As attaching takes it, e.g. `blocks.12.hook_resid_post`."""
    width: int | None
    """Features."""
    l0: float | None
    """Features that are active at a token, on average, by its publisher's count."""
    neuronpedia: str | None
    """A link to its page."""
    format: str
    support: Support


class RegistryPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of what was searched for."""

    total: int
    saes: tuple[RegistrySae, ...]


class RegistryModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that there are public SAEs for."""

    id: str
    """`owner/name` on Hugging Face."""
    parameters: float | None
    """As its name says."""
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
    """The best first: of that very model, residual stream, a common width, Neuronpedia's choice, a usual L0.

    `model` is a Hugging Face id or a short name; SAEs of its base or tuned versions are found too. `text`: words that
    must all be in the repository, the path or a release's name. `most_l0` leaves out those whose L0 is not known, too.
    """
    words = text.lower().split()
    found = [
        sae
        for sae in load_index().saes
        if (layer is None or sae.layer == layer)
        and (site is None or sae.site == site)
        and (width is None or sae.width == width)
        and (most_l0 is None or (sae.l0 is not None and sae.l0 <= most_l0))
        and (model is None or _release(sae).model in _related_models(model))
        and (not words or all(word in _search_text(sae) for word in words))
    ]
    found.sort(key=lambda sae: _rank(sae, model))
    return RegistryPage(total=len(found), saes=tuple(_to_registry_sae(sae) for sae in found[offset : offset + limit]))


def find_sae(sae_id: str) -> RegistrySae | None:
    """By `owner/name/path/inside`; a revision (`@…`) makes no difference."""
    sae = _find_record(sae_id)
    return None if sae is None else _to_registry_sae(sae)


def input_scale(sae_id: str) -> float | None:
    """What its activations were multiplied by in training, where its own files do not say it."""
    sae = _find_record(sae_id)
    return None if sae is None else sae.input_scale


def count_saes(model_id: str) -> int:
    """How many `search(model=model_id)` finds."""
    return sum(_release(sae).model in _related_models(model_id) for sae in load_index().saes)


def neuronpedia_link(sae_id: str, feature: int | None = None) -> str | None:
    """The page of an SAE or of one of its features; None where the catalogue has no id, which is never guessed."""
    sae = _find_record(sae_id)
    link = None if sae is None else _neuronpedia_url(sae)
    return link if link is None or feature is None else f"{link}/{feature}"


def neuronpedia_id(sae_id: str) -> str | None:
    """`model/layer-source`, as Neuronpedia calls it; None where the catalogue does not say."""
    sae = _find_record(sae_id)
    return None if sae is None else sae.neuronpedia


def find_by_neuronpedia_id(name: str) -> RegistrySae | None:
    """By `model/layer-source`; None where none or several are called that."""
    found = _records_by_neuronpedia_id().get(name, [])
    return _to_registry_sae(found[0]) if len(found) == 1 else None


@cache
def _records_by_neuronpedia_id() -> dict[str, list[SaeRecord]]:
    found: dict[str, list[SaeRecord]] = {}
    for sae in load_index().saes:
        if sae.neuronpedia:
            found.setdefault(sae.neuronpedia, []).append(sae)
    return found


@cache
def list_models() -> tuple[RegistryModel, ...]:
    """Models that there are SAEs for, the smallest first."""
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
    """The catalogue's names of that model, its base and its tuned versions."""
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
