"""The CSV file of lm-evaluation-harness' steered models: a row per feature, described by the profile's name."""

import csv
import io

from millm.profiles.contract import Profile, ProfileFeature
from millm.profiles.exporters.carried import SaeMeasurements, check_tokens, export_error, raw_features, sae_of_feature
from millm.profiles.importers.lm_eval import COLUMNS, LOADERS

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
