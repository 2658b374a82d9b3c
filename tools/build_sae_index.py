"""Makes the registry's file of the catalogue in the installed `sae-lens`, and says what it found.

    python -m tools.build_sae_index [FILE]        needs `pip install -e '.[saelens]'`

Only the catalogue is read (`pretrained_saes.yaml`); SAELens itself is not imported.
"""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # SAELens brings it

from millm.hub.catalog import INDEX_FILE, SaeIndex, SaeRecord, SaeRelease, Site, pack_index

Catalogue = dict[str, dict[str, Any]]

_FORMATS = {
    None: "saelens",
    "gemma_2": "gemma_scope",
    "gemma_2_transcoder": "gemma_scope",
    "gemma_3": "gemma_scope_2",
    "dictionary_learning_1": "dictionary_learning",
    "mwhanna_transcoder": "mwhanna",
    "mntss_clt_layer_transcoder": "clt",
    "connor_rob_hook_z": "connor_rob",
    "goodfire": "torch_linear",
    "deepseek_r1": "torch_linear",
}
"""Ours by SAELens' name of the loader, where the two differ."""

_KNOWN = {"id", "path", "l0", "neuronpedia", "norm_scaling_factor", "variance_explained"}
_CORRECTED = {"gemma-scope-9b-it-res": "gemma-2-9b-it"}
"""The catalogue says gemma-2-9b; the repository and the release of the same SAEs with Neuronpedia's ids say this."""

_LAYER = re.compile(r"(?:blocks\.|layer_?|/L|-L|-l|_L)(\d+)(?!\d|x)|^(\d+)(?:-|$)")
_HOOK = re.compile(r"hook_(resid_pre|resid_mid|resid_post|attn_out|mlp_out|z)(?![a-z])")
_WIDTHS = (
    (re.compile(r"(?:width_|-W|w-|v5_|-)(\d+)k(?:-|/|_|\s|$)", re.I), 2**10),
    (re.compile(r"(?:width_|-res-)(\d+)m(?:/|_|\s|$)"), 2**20),
    (re.compile(r"(?:hook_\w+_|_ds)(\d{3,6})(?:_|:|\s|$)"), 1),
)
_ROUNDED = {65: 64, 131: 128, 262: 256, 524: 512}
"""Thousands that mean a power of two."""
_LLAMA_SCOPE = re.compile(r"Llama3_1-8B-Base-L\d+[RAM]-(\d+)x")
_IN_THE_LOADER = {"torch_linear": 65536, "llama_scope_r1_distill": 8 * 4096}
"""Widths that are written in SAELens' code, or for R1-Distill in Neuronpedia's names of most of them."""
_SITES: dict[str, Site] = {"R": "resid_post", "A": "attn_out", "M": "mlp_out"}


def main(file: Path) -> None:
    catalogue = read_catalogue()
    content = build(catalogue)
    file.write_bytes(pack_index(content))
    listed = sum(len(sae.releases) for sae in content.saes)
    print(f"{len(content.releases)} releases, {listed} SAEs at {len(content.saes)} places, of {content.source}")
    for release, sae in malformed(catalogue):
        print(f"malformed: {release}, {sae['id']} holds a release of its own; only its id and path are used")
    print(f"{file.stat().st_size} bytes")


def read_catalogue() -> Catalogue:
    spec = find_spec("sae_lens")
    assert spec is not None, "sae-lens is not installed"
    assert spec.origin is not None
    with Path(spec.origin).with_name("pretrained_saes.yaml").open("rb") as file:
        catalogue: Catalogue = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return catalogue


def malformed(catalogue: Catalogue) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, release in catalogue.items():
        yield from ((name, sae) for sae in release["saes"] if sae.keys() - _KNOWN)


def build(catalogue: Catalogue) -> SaeIndex:
    releases = [_release(name, said) for name, said in catalogue.items()]
    places: dict[tuple[str, str], list[tuple[int, dict[str, Any]]]] = {}
    for number, said in enumerate(catalogue.values()):
        for sae in said["saes"]:
            places.setdefault((said["repo_id"], str(sae["path"])), []).append((number, sae))
    saes = [_record(path, releases, _preferred(listed)) for (_, path), listed in places.items()]
    return SaeIndex(source=f"sae-lens {version('sae-lens')}", releases=releases, saes=saes)


def _release(name: str, said: dict[str, Any]) -> SaeRelease:
    loader = said["conversion_func"]
    return SaeRelease(name, said["repo_id"], _CORRECTED.get(name, said["model"]), _FORMATS.get(loader, loader))


def _preferred(listed: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, dict[str, Any]]]:
    """First what has the plainest Neuronpedia id: of `16k` and `16k__l0-50`, both of one SAE, the former."""
    return sorted(listed, key=lambda entry: ("neuronpedia" not in entry[1], len(entry[1].get("neuronpedia", ""))))


def _record(path: str, releases: list[SaeRelease], listed: list[tuple[int, dict[str, Any]]]) -> SaeRecord:
    release, first = releases[listed[0][0]], listed[0][1]
    names = [str(sae["id"]) for _, sae in listed]
    text = " ".join((path, *names))
    site = _site(release, text)
    return SaeRecord(
        releases=tuple(number for number, _ in listed),
        ids=tuple("" if name == path else name for name in names),
        path=path,
        layer=None if site == "embed" else _layer(text),
        site=site,
        width=_width(release, text, first.get("neuronpedia", "")),
        l0=_l0(path, [sae["l0"] for _, sae in listed if sae.get("l0")]),
        neuronpedia=first.get("neuronpedia"),
        input_scale=first.get("norm_scaling_factor"),
    )


def _layer(text: str) -> int | None:
    found = _LAYER.search(text)
    return int(found[1] or found[2]) if found else None


def _site(release: SaeRelease, text: str) -> Site:
    if named := _HOOK.search(text):
        return "hook_z" if named[1] == "z" else named[1]  # type: ignore[return-value]  # the pattern has only sites
    if release.format == "gemma_scope" and "embedding" in text:
        return "embed"
    if "transcoder" in f"{release.repository}/{text}" or release.format == "clt":
        return "transcoder"
    if release.format == "llama_scope":
        return _SITES[re.findall(r"L\d+([RAM])", text)[0]]
    where = text if release.format == "gemma_scope_2" else release.repository
    if re.search(r"-mlp|mlp_out", where):
        return "mlp_out"
    return "hook_z" if re.search(r"-att|attn_out", where) else "resid_post"


def _width(release: SaeRelease, text: str, neuronpedia: str) -> int | None:
    if release.format in _IN_THE_LOADER:
        return _IN_THE_LOADER[release.format]
    if times := _LLAMA_SCOPE.search(text):
        return int(times[1]) * 4096
    if power := re.search(r"2pow(\d+)", release.repository):
        return 1 << int(power[1])
    for words in (text, neuronpedia, release.repository):
        for pattern, unit in _WIDTHS:
            if found := pattern.search(words):
                return _ROUNDED.get(int(found[1]), int(found[1])) * unit
    return None


def _l0(path: str, said: list[float]) -> float | None:
    in_path = re.search(r"average_l0_(\d+)", path)
    return float(in_path[1]) if in_path else said[0] if said else None


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("src/millm/hub") / INDEX_FILE)
