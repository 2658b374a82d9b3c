"""The CSV file of lm-evaluation-harness' steered models: a row per feature, described by the profile's name."""

import csv
import io

from millm.profiles.contract import Profile, ProfileFeature
from millm.profiles.exporters.carried import Measured, check_tokens, raw, refused, sae_of
from millm.profiles.importers.lm_eval import COLUMNS, LOADERS

FORMAT = "lm-eval"


def text(profile: Profile, measured: Measured) -> str:
    """Raises InvalidProfile."""
    features = raw(profile, FORMAT, measured, modes=("add", "clamp"))
    if not features:
        raise refused(profile, f"{FORMAT} needs a feature at least")
    check_tokens(profile, FORMAT, None if any(one.mode == "clamp" for one in features) else "none")
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows(_row(profile, one) for one in features)
    return written.getvalue()


def _row(profile: Profile, one: ProfileFeature) -> tuple[object, ...]:
    sae = sae_of(profile, one, FORMAT)
    if sae.layer is None or sae.hook_point not in (None, f"blocks.{sae.layer}.hook_resid_post"):
        raise refused(profile, f"{FORMAT} needs the `layer` of an SAE of a layer's output (resid_post)")
    if sae.called is None:
        raise refused(profile, f"{FORMAT} needs the `repo_id` or the `name` of the SAE")
    model, path = (sae.repo_id, sae.path) if sae.repo_id else (sae.called, None)
    place = f"{path}@{sae.revision}" if path and sae.revision else path
    layer = f"layers.{sae.layer}"
    return LOADERS[0], one.mode, model, layer, one.index, one.strength, place or "", profile.name
