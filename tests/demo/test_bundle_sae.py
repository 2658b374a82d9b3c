"""The SAE in the package is complete and consistent."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import millm.demo

FOLDER = Path(millm.demo.__file__).parent / "sae"
WIDTH, FEATURES = 576, 4096


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return load_file(FOLDER / "sae_weights.safetensors")


def test_configuration_fits_the_weights(weights: dict[str, np.ndarray]) -> None:
    config = json.loads((FOLDER / "cfg.json").read_text("utf-8"))
    assert (config["d_in"], config["d_sae"]) == (WIDTH, FEATURES) == weights["W_enc"].shape
    assert weights["W_dec"].shape == (FEATURES, WIDTH)
    assert config["metadata"]["hook_name"] == "blocks.20.hook_resid_post"


def test_decoder_rows_have_unit_length(weights: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(np.linalg.norm(weights["W_dec"].astype(np.float32), axis=1), 1, atol=1e-3)


def test_labels_name_existing_features() -> None:
    labels = [json.loads(line) for line in (FOLDER / "labels.jsonl").read_text("utf-8").splitlines()]
    indices = [label["index"] for label in labels]
    assert len(set(indices)) == len(labels) == 20
    assert all(0 <= index < FEATURES for index in indices)
    assert all(label["label"] and label["max_act"] > 0 for label in labels)
