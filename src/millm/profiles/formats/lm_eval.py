"""The table of steered features that lm-evaluation-harness reads: rows of one description are one profile.

The CSV file of lm-evaluation-harness' steered models: a row per feature, described by the profile's name.
"""

import csv
import io
import re
from typing import Any

from millm.errors import InvalidImport
from millm.profiles.formats.document import DocumentEntry, KnownSaes, Node
from millm.profiles.formats.export_result import (
    SaeMeasurements,
    check_tokens,
    export_error,
    raw_features,
    sae_of_feature,
)
from millm.profiles.formats.import_result import (
    ProfileDraft,
    SaeReferences,
    build_entry,
    build_feature,
    reference_from_id,
    resolve_foreign_sae,
)
from millm.profiles.schema import Profile, ProfileFeature, SaeReference

FORMAT = "lm-eval"
COLUMNS = (
    "loader", "action", "sparse_model", "hookpoint", "feature_index", "steering_coefficient", "sae_id", "description",
)  # fmt: skip
LOADERS = ("sae_lens", "sparsify")
_LAYER = re.compile(r"layers\.(\d{1,5})(?:\.mlp|\.attention)?")
_MAX_ROWS = 100_000


def parse_csv(text: str) -> Any:
    """The rows as a JSON document: {"rows": [{column: text}]}. Raises InvalidImport."""
    rows = csv.DictReader(io.StringIO(text), strict=True)
    if not set(COLUMNS[1:6]) <= set(rows.fieldnames or ()):
        raise InvalidImport(f"a CSV file has to have the columns {', '.join(COLUMNS)}")
    try:
        found = list(rows)
    except csv.Error as error:
        raise InvalidImport(f"line {rows.line_num} of the CSV file cannot be read: {error}") from error
    if len(found) > _MAX_ROWS or any(None in row or None in row.values() for row in found):
        raise InvalidImport(f"a CSV file has at most {_MAX_ROWS:,} rows, each with as many cells as the first")
    return {"rows": found}


def matches(node: Node) -> bool:
    return isinstance((node / "rows").value, list)


def read_entries(node: Node, known: KnownSaes) -> list[DocumentEntry]:
    groups: dict[str, list[Node]] = {}
    for row in node / "rows":
        groups.setdefault((row / "description").text() or "lm-eval", []).append(row)
    return [_profile_entry(name, rows, known) for name, rows in groups.items()]


def _profile_entry(name: str, rows: list[Node], known: KnownSaes) -> DocumentEntry:
    saes = {_sae_key(row): _read_sae(row, known) for row in rows}
    names = {place: found.references[0].alias for place, found in saes.items()}
    features = []
    for row in rows:
        mode = (row / "action").required_text()
        if mode not in ("add", "clamp"):
            raise (row / "action").import_error("has to be add or clamp")
        if mode == "clamp":
            (row / "action").note("lm-eval holds the projection on the decoder row, miLLM the feature's activation")
        index, strength = _read_number(row / "feature_index", int), _read_number(row / "steering_coefficient", float)
        sae = names[_sae_key(row)] if len(saes) > 1 else None
        features.append(build_feature(row, index, strength, mode=mode, sae=sae))
    references = tuple(one for found in saes.values() for one in found.references)
    unresolved = tuple(one for found in saes.values() for one in found.unresolved)
    reading = any(one.mode == "clamp" for one in features)
    if reading:
        rows[0].note("position 0 is left alone: a feature's activation means nothing there")
    more = {"skip": None if reading else "none", "provenance": {"source": "lm-eval", "format": "csv"}}
    return build_entry(ProfileDraft(rows[0], name, features, SaeReferences(references, unresolved), more))


def _read_number(node: Node, kind: type[int] | type[float]) -> Any:
    try:
        return kind(node.required_text())
    except ValueError as error:
        raise node.import_error("has to be a number") from error


def _sae_key(row: Node) -> tuple[object, ...]:
    return tuple((row / name).value for name in ("loader", "sparse_model", "hookpoint", "sae_id"))


def _read_sae(row: Node, known: KnownSaes) -> SaeReferences:
    loader, model = (row / "loader").text() or LOADERS[0], (row / "sparse_model").required_text()
    if loader not in LOADERS:
        raise (row / "loader").import_error(f"has to be one of {', '.join(LOADERS)}")
    layer = _read_layer(row / "hookpoint")
    path = (row / "sae_id").text()
    name = f"{model}/{path}" if path else model
    (row / "loader").note("how lm-eval reads the SAE: it is found by its name here")
    if name in known.ids:
        return resolve_foreign_sae(row / "sparse_model", name, known, layer)
    if model.count("/") != 1:
        return resolve_foreign_sae(row / "sparse_model", name, known, layer)
    reference: SaeReference = reference_from_id(name, layer=layer)
    return SaeReferences((reference,))


def _read_layer(node: Node) -> int:
    found = _LAYER.fullmatch(node.required_text())
    if not found or node.value != f"layers.{found[1]}":
        raise node.import_error(
            "has to be a layer's output, layers.<number>: attention and MLP are not steered so here"
        )
    return int(found[1])


EXPORT_FORMAT = "lm-eval"


def export_csv(profile: Profile, measurements: SaeMeasurements) -> str:
    """Raises InvalidProfile."""
    features = raw_features(profile, EXPORT_FORMAT, measurements, modes=("add", "clamp"))
    if not features:
        raise export_error(profile, f"{EXPORT_FORMAT} needs a feature at least")
    check_tokens(profile, EXPORT_FORMAT, None if any(one.mode == "clamp" for one in features) else "none")
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows(_export_row(profile, one) for one in features)
    return written.getvalue()


def _export_row(profile: Profile, feature: ProfileFeature) -> tuple[object, ...]:
    sae = sae_of_feature(profile, feature, EXPORT_FORMAT)
    if sae.layer is None or sae.hook_point not in (None, f"blocks.{sae.layer}.hook_resid_post"):
        raise export_error(profile, f"{EXPORT_FORMAT} needs the `layer` of an SAE of a layer's output (resid_post)")
    if sae.alias is None:
        raise export_error(profile, f"{EXPORT_FORMAT} needs the `repo_id` or the `name` of the SAE")
    model, path = (sae.repo_id, sae.path) if sae.repo_id else (sae.alias, None)
    place = f"{path}@{sae.revision}" if path and sae.revision else path
    layer = f"layers.{sae.layer}"
    return LOADERS[0], feature.mode, model, layer, feature.index, feature.strength, place or "", profile.name
