"""lm-evaluation-harness' CSV of steered features: a row per feature; rows of one description are one profile."""

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
from millm.profiles.schema import Profile, ProfileFeature

FORMAT = "lm-eval"
COLUMNS = (
    "loader", "action", "sparse_model", "hookpoint", "feature_index", "steering_coefficient", "sae_id", "description",
)  # fmt: skip
LOADERS = ("sae_lens", "sparsify")
_LAYER = re.compile(r"layers\.(\d{1,5})(?:\.mlp|\.attention)?")
_MAX_ROWS = 100_000


def parse_csv(text: str) -> Any:
    """The rows as a JSON document: {"rows": [{column: text}]}. Raises InvalidImport."""
    reader = csv.DictReader(io.StringIO(text), strict=True)
    if not set(COLUMNS[1:6]) <= set(reader.fieldnames or ()):
        raise InvalidImport(f"a CSV file has to have the columns {', '.join(COLUMNS)}")
    try:
        rows = list(reader)
    except csv.Error as error:
        raise InvalidImport(f"line {reader.line_num} of the CSV file cannot be read: {error}") from error
    if len(rows) > _MAX_ROWS or any(None in row or None in row.values() for row in rows):
        raise InvalidImport(f"a CSV file has at most {_MAX_ROWS:,} rows, each with as many cells as the first")
    return {"rows": rows}


def matches(node: Node) -> bool:
    return isinstance((node / "rows").value, list)


def read_entries(node: Node, known: KnownSaes) -> list[DocumentEntry]:
    groups: dict[str, list[Node]] = {}
    for row in node / "rows":
        groups.setdefault((row / "description").text() or "lm-eval", []).append(row)
    return [_profile_entry(name, rows, known) for name, rows in groups.items()]


def _profile_entry(name: str, rows: list[Node], known: KnownSaes) -> DocumentEntry:
    saes = {_sae_key(row): _read_sae(row, known) for row in rows}
    features = []
    for row in rows:
        mode = (row / "action").required_text()
        if mode not in ("add", "clamp"):
            raise (row / "action").import_error("has to be add or clamp")
        if mode == "clamp":
            (row / "action").note("lm-eval holds the projection on the decoder row, miLLM the feature's activation")
        index, strength = _read_number(row / "feature_index", int), _read_number(row / "steering_coefficient", float)
        sae = saes[_sae_key(row)].references[0].alias if len(saes) > 1 else None
        features.append(build_feature(row, index, strength, mode=mode, sae=sae))
    clamps = any(one.mode == "clamp" for one in features)
    if clamps:
        rows[0].note("position 0 is left alone: a feature's activation means nothing there")
    more = {"skip": None if clamps else "none", "provenance": {"source": "lm-eval", "format": "csv"}}
    return build_entry(ProfileDraft(rows[0], name, features, SaeReferences.joined(saes.values()), more))


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
    if name in known.ids or model.count("/") != 1:
        return resolve_foreign_sae(row / "sparse_model", name, known, layer)
    return SaeReferences((reference_from_id(name, layer),))


def _read_layer(node: Node) -> int:
    match = _LAYER.fullmatch(node.required_text())
    if not match or node.value != f"layers.{match[1]}":
        raise node.import_error(
            "has to be a layer's output, layers.<number>: attention and MLP are not steered so here"
        )
    return int(match[1])


def export_csv(profile: Profile, measurements: SaeMeasurements) -> str:
    """Raises InvalidProfile."""
    features = raw_features(profile, FORMAT, measurements, modes=("add", "clamp"))
    if not features:
        raise export_error(profile, f"{FORMAT} needs a feature at least")
    check_tokens(profile, FORMAT, None if any(one.mode == "clamp" for one in features) else "none")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_export_row(profile, one) for one in features)
    return text.getvalue()


def _export_row(profile: Profile, feature: ProfileFeature) -> tuple[object, ...]:
    sae = sae_of_feature(profile, feature, FORMAT)
    if sae.layer is None or sae.hook_point not in (None, f"blocks.{sae.layer}.hook_resid_post"):
        raise export_error(profile, f"{FORMAT} needs the `layer` of an SAE of a layer's output (resid_post)")
    if sae.alias is None:
        raise export_error(profile, f"{FORMAT} needs the `repo_id` or the `name` of the SAE")
    model, path = (sae.repo_id, sae.path) if sae.repo_id else (sae.alias, None)
    sae_id = f"{path}@{sae.revision}" if path and sae.revision else path
    layer = f"layers.{sae.layer}"
    return LOADERS[0], feature.mode, model, layer, feature.index, feature.strength, sae_id or "", profile.name
