"""Exports imported again steer the same; what a format cannot express is an error."""

import io
import json
import struct
from pathlib import Path

import pytest
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st

from millm.engine.messages import SteeringDirection
from millm.errors import InvalidProfile
from millm.lifecycle.profile_exchange import millm_document
from millm.profiles.formats import adr, gguf, lm_eval, mistudio, neuronpedia
from millm.profiles.formats.detect import parse_document
from millm.profiles.formats.document import KnownSaes
from millm.profiles.formats.export_result import SaeMeasurements
from millm.profiles.schema import Profile, SaeReference

SHAPES = Path(__file__).parent / "shapes"
SCOPE = "google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71"
SAE = SaeReference(repo_id="google/gemma-scope-2b-pt-res", path="layer_20/width_16k/average_l0_71", layer=20)
FORMATS = ("millm", "adr", "mistudio", "neuronpedia", "lm-eval", "gguf")
SKIP = {"mistudio": "none", "lm-eval": "none", "gguf": "none"}


def written(profile: Profile, format: str) -> bytes:
    match format:
        case "millm":
            return millm_document(profile)
        case "lm-eval":
            return lm_eval.export_csv(profile, SaeMeasurements()).encode()
        case "gguf":
            gguf.check_exportable(profile)
            vector = struct.pack("<4f", 1.0, 2.0, 0.0, -1.0)
            place = "blocks.20.hook_resid_post"
            direction = SteeringDirection(sae="x", layer=20, hook_point=place, vector=vector, norm=2.4, varies=False)
            return gguf.export_gguf(profile, [direction], "gemma2")
    module = {"adr": adr, "mistudio": mistudio, "neuronpedia": neuronpedia}[format]
    return json.dumps(module.export_document(profile, SaeMeasurements())).encode()


def steering(profile: Profile) -> object:
    features = sorted((one.index, one.strength, one.mode, one.unit) for one in profile.features)
    return features, profile.positions, profile.skip, profile.skip_constrained


def again(profile: Profile, format: str) -> Profile:
    known = KnownSaes({profile.saes[0].alias or "": SCOPE})
    (entry,) = parse_document(written(profile, format), known).entries
    assert entry.unresolved == ()
    assert entry.profile is not None
    return entry.profile


FEATURES = st.dictionaries(
    st.integers(0, 16383), st.floats(-300, 300, allow_nan=False), min_size=1, max_size=4
)  # fmt: skip
NAMES = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=40)


@settings(max_examples=170, deadline=None)
@pytest.mark.parametrize("format", FORMATS)
@given(features=FEATURES, name=NAMES, special=st.sampled_from([None, "none", "special"]))
def test_exported_profile_round_trips(format: str, features: dict[int, float], name: str, special: str | None) -> None:
    skip = special if format in ("millm", "neuronpedia") else SKIP.get(format)
    profile = Profile(
        name=name, model="google/gemma-2-2b", saes=(SAE,), skip=skip,
        features=[{"index": index, "strength": strength} for index, strength in features.items()],
    )  # fmt: skip
    read = again(profile, format)
    assert steering(read) == steering(profile)
    assert read.saes[0].layer == 20


@pytest.mark.parametrize(
    ("shape", "format"),
    [
        ("millm-v1.json", "millm"),
        ("peer-a-flat.json", "millm"),
        ("peer-b-wrapped.json", "adr"),
        ("peer-c-adr.json", "adr"),
        ("peer-d-browser.json", "adr"),
        ("mistudio-experiment.json", "mistudio"),
        ("mistudio-experiment-multi.json", "mistudio"),
        ("mistudio-combined.json", "mistudio"),
        ("mistudio-sweep.json", "mistudio"),
        ("mistudio-browser.json", "mistudio"),
        ("neuronpedia-steer.json", "neuronpedia"),
        ("neuronpedia-steer-chat.json", "neuronpedia"),
        ("neuronpedia-list.json", "neuronpedia"),
        ("neuronpedia-feature.txt", "neuronpedia"),
        ("lm-eval.csv", "lm-eval"),
        ("goodfire-variant.json", "millm"),
    ],
)
def test_imported_profile_round_trips_its_format(shape: str, format: str) -> None:
    asked = parse_document((SHAPES / shape).read_bytes(), KnownSaes())
    known = KnownSaes({one.id: SCOPE for entry in asked.entries for one in entry.unresolved if one.kind == "sae"})
    for entry in parse_document((SHAPES / shape).read_bytes(), known).entries:
        assert entry.profile is not None
        assert steering(again(entry.profile, format)) == steering(entry.profile)


def profile(**changes: object) -> Profile:
    whole = {"name": "x", "model": "google/gemma-2-2b", "saes": [SAE], "features": [{"index": 3, "strength": 5.0}]}
    return Profile.model_validate({**whole, **changes})


@pytest.mark.parametrize("format", [format for format in FORMATS if format != "millm"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"positions": "prompt"}, "`positions` is 'prompt'"),
        ({"skip": "bos"}, "`skip` is 'bos'"),
        ({"skip_constrained": True}, "`skip_constrained`"),
        ({"features": [{"index": 3, "mode": "ablate"}]}, "mode 'ablate'"),
    ],
)
def test_inexpressible_properties_are_rejected_by_name(format: str, changes: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidProfile, match=said):
        written(profile(**{"skip": SKIP.get(format), **changes}), format)


@pytest.mark.parametrize(
    ("format", "changes", "said"),
    [
        ("mistudio", {"features": [{"index": 3, "strength": 301.0}]}, "takes ±300"),
        ("mistudio", {"features": [{"index": index, "strength": 1.0} for index in range(5)]}, "takes 1 to 4"),
        ("mistudio", {"saes": []}, "exactly one SAE"),
        ("adr", {"model": None}, "needs `model`"),
        ("neuronpedia", {"saes": [{"repo_id": "o/n", "path": "p"}]}, "no page of the SAE"),
        ("lm-eval", {"saes": [{"repo_id": "o/n"}]}, "needs the `layer`"),
        (
            "lm-eval",
            {"saes": [{"repo_id": "o/n", "layer": 2, "hook_point": "blocks.2.hook_mlp_out"}]},
            "layer's output",
        ),
        ("adr", {"features": [{"index": 3, "strength": 1.0, "unit": "norm"}]}, "residual norm"),
    ],
)
def test_format_limits_are_named(format: str, changes: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidProfile, match=said):
        written(profile(**{"skip": SKIP.get(format), **changes}), format)


def test_units_convert_to_residual_units() -> None:
    units = [{"index": 3, "strength": 0.5, "unit": "norm"}, {"index": 4, "strength": 2.0, "unit": "max_act"}]
    measured = SaeMeasurements({SAE.alias: 60.0}, {SAE.alias: {4: 7.0}})
    assert [one["strength"] for one in adr.export_document(profile(features=units), measured)["features"]] == [
        30.0,
        14.0,
    ]
    own = profile(features=units[:1], reference_norm=10.0)
    assert adr.export_document(own, measured)["features"][0]["strength"] == 5.0


def test_mistudio_colours_are_valid_and_distinct() -> None:
    colours = ["blue", "blue", "pink", None]
    features = [{"index": index, "strength": 1.0, "color": colour} for index, colour in enumerate(colours)]
    told = mistudio.export_document(profile(features=features, skip="none"), SaeMeasurements())["result"][
        "features_applied"
    ]
    assert told[0]["color"] == "blue"
    assert {one["color"] for one in told} == set(mistudio.COLOURS)


def test_control_vector_matches_the_gguf_library(tmp_path: Path) -> None:
    path = tmp_path / "vector.gguf"
    path.write_bytes(written(profile(skip="none"), "gguf"))
    reader = GGUFReader(path)
    assert reader.fields["general.architecture"].contents() == "controlvector"
    (tensor,) = reader.tensors
    assert (tensor.name, tensor.data.tolist()) == ("direction.20", [1.0, 2.0, 0.0, -1.0])


def test_foreign_control_vector_becomes_vectors() -> None:
    from_us = io.BytesIO(written(profile(skip="none"), "gguf")).read()
    plain = from_us.replace(b"millm.profile", b"other.profile")
    (entry,) = parse_document(plain, KnownSaes()).entries
    (vector,) = entry.vectors
    assert (vector.layer, vector.values) == (20, (1.0, 2.0, 0.0, -1.0))


@pytest.mark.parametrize("place", ["blocks.0.hook_resid_post", "blocks.20.hook_mlp_out"])
def test_llama_cpp_rejects_layer_0(place: str) -> None:
    layer = int(place.split(".")[1])
    direction = SteeringDirection(sae="x", layer=layer, hook_point=place, vector=bytes(16), norm=0.0, varies=False)
    with pytest.raises(InvalidProfile, match="from 1 on"):
        gguf.export_gguf(profile(skip="none"), [direction], "gemma2")
