"""Calibration against results known in advance, on the right tensor and on wrong ones."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM

from millm.demo.bundle import SAE_FOLDER
from millm.errors import InvalidModel, InvalidRequest
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.calibration import calibrate
from millm.sae.config import SaeConfig, calibration_text
from millm.sae.formats import canonicalise
from millm.sae.hooks import capture, resolve_hook_point

WIDTH = 48


def principal_sae(x: Tensor, n: int, silent: int = 2000) -> SparseAutoencoder:
    """Rebuilds x from its mean and its first n principal directions, each as two features, one per sign.

    `silent` further features never fire.
    """
    mean = x.mean(dim=0)
    directions = torch.linalg.svd(x - mean, full_matrices=False).Vh[:n]  # [n, d]
    rows = torch.cat([directions, -directions, torch.zeros(silent, x.shape[1])])
    config = SaeConfig(
        architecture="standard",
        d_in=x.shape[1],
        d_out=x.shape[1],
        d_sae=len(rows),
        source_format="test",
        dtype="float32",
    )
    return SparseAutoencoder(config, "0" * 64, {"W_enc_T": rows, "W_dec": rows, "b_enc": -rows @ mean, "b_dec": mean})


def residuals(seed: int = 0, tokens: int = 200) -> Tensor:
    """Unequal directions about a mean, as residual streams have them."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q
    spread = torch.linspace(3, 0.1, WIDTH)
    x = torch.randn(tokens, WIDTH, generator=generator) * spread @ turn
    return 2 * torch.randn(WIDTH, generator=generator) + x


def test_variance_explained_equals_the_singular_values_share() -> None:
    x = residuals()
    spectrum = torch.linalg.svdvals(x - x.mean(dim=0)).square()
    for n in (WIDTH, 24, 6):
        calibration = calibrate(principal_sae(x, n), x, x)
        assert calibration.variance_explained == pytest.approx((spectrum[:n].sum() / spectrum.sum()).item(), abs=1e-4)
        assert calibration.l0 == n  # one of each pair of signs


def test_the_residual_norm_is_the_median_length_of_the_usual_tokens() -> None:
    x = residuals(tokens=201)
    x = 10 * x / x.norm(dim=-1, keepdim=True) * torch.linspace(0.5, 1.5, 201).unsqueeze(-1)
    assert calibrate(principal_sae(x, 6), x, x).residual_norm == pytest.approx(10)


def test_attention_sinks_are_excluded() -> None:
    x = residuals()
    sae = principal_sae(x, 24)
    sink = 150 * x[:1]
    calibration, clean = calibrate(sae, torch.cat([sink, x]), torch.cat([sink, x])), calibrate(sae, x, x)
    assert calibration.variance_explained == clean.variance_explained
    assert calibration.l0 == clean.l0
    assert calibration.residual_norm == pytest.approx(clean.residual_norm, rel=0.02)


def test_a_matching_sae_gives_no_warning() -> None:
    x = residuals()
    assert calibrate(principal_sae(x, 24), x, x).warnings == ()


def test_an_sae_on_another_tensor_gives_a_warning() -> None:
    x = residuals()
    elsewhere = residuals(seed=1)
    (warning,) = calibrate(principal_sae(x, 6), elsewhere, elsewhere).warnings
    assert "wrong layer or model" in warning
    assert "none of the variance" in warning


def test_a_poor_reconstruction_is_reported_in_percent() -> None:
    x = residuals()
    calibration = calibrate(principal_sae(x, 5), x, x)
    assert calibration.variance_explained is not None
    assert f"only {calibration.variance_explained:.0%} of the variance" in calibration.warnings[0]


def test_too_many_and_no_active_features_give_warnings() -> None:
    x = residuals()
    crowded = calibrate(principal_sae(x, WIDTH, silent=0), x, x)
    assert crowded.warnings == ("48 of 96 features are active per token, far too many: wrong layer or model?",)
    dead = calibrate(principal_sae(x, 0), x, x)
    assert dead.l0 == 0
    assert any("no feature of the SAE" in warning for warning in dead.warnings)


def test_a_transcoder_is_measured_on_its_target() -> None:
    x, target = residuals(), residuals(seed=1)
    sae = principal_sae(x, WIDTH)
    assert calibrate(sae, x, x).variance_explained == pytest.approx(1, abs=1e-4)
    assert (calibrate(sae, x, target).variance_explained or 0) < 0


def test_a_constant_target_has_no_variance_explained() -> None:
    x = residuals()
    assert calibrate(principal_sae(x, 24), x[:1], x[:1]).variance_explained is None


def test_half_precision_tensors_are_measured_in_float32() -> None:
    x = residuals()
    full, half = (calibrate(principal_sae(x, 24), t, t) for t in (x, x.bfloat16()))
    assert half.variance_explained == pytest.approx(full.variance_explained, abs=1e-3)
    assert half.residual_norm == pytest.approx(full.residual_norm, rel=1e-2)


def test_a_model_with_infinite_values_is_rejected() -> None:
    x = residuals()
    sae = principal_sae(x, 6)
    x[3, 5] = torch.inf
    with pytest.raises(InvalidModel, match="bfloat16"):
        calibrate(sae, x, x)


def test_a_text_of_one_token_is_rejected() -> None:
    x = residuals()
    with pytest.raises(InvalidRequest, match="at least one token"):
        calibrate(principal_sae(x, 6), x[:0], x[:0])


# ----------------------------------------------------------------------------------------------------- the text


def test_the_calibration_text_is_short_and_varied() -> None:
    paragraphs = calibration_text()
    assert 6 <= len(paragraphs) <= 8
    assert 150 <= sum(len(paragraph.split()) for paragraph in paragraphs) <= 250
    assert all(len(paragraph.split()) > 10 for paragraph in paragraphs)
    assert any("def " in paragraph for paragraph in paragraphs)
    assert any("boulangère" in paragraph for paragraph in paragraphs)


def test_names_and_text_do_not_import_torch() -> None:
    code = "import sys, millm.sae.config, millm.sae.base_models; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ----------------------------------------------------------------------------------------------------- for real


@pytest.mark.demo
def test_the_demo_sae_fits_its_own_layer_best(demo_folder: Path, tmp_path: Path) -> None:
    sae = SparseAutoencoder.open(canonicalise(SAE_FOLDER, tmp_path))
    model = AutoModelForCausalLM.from_pretrained(demo_folder, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(demo_folder / "tokenizer.json"))
    points = [resolve_hook_point(model, f"blocks.{layer}.hook_resid_post") for layer in (10, 18, 20, 22, 25)]
    texts = [capture(model, points, tokenizer.encode(text).ids) for text in calibration_text()]
    calibration = {}
    for point in points:
        x = torch.cat([seen[point.name][1:] for seen in texts])
        calibration[point.layer] = calibrate(sae, x, x)
    assert calibration[20].warnings == ()
    assert calibration[20].residual_norm == pytest.approx(237, rel=0.02)
    assert (calibration[20].variance_explained or 0) > 0.7
    assert 25 < calibration[20].l0 < 45
    assert all("wrong layer or model" in calibration[layer].warnings[0] for layer in (10, 18, 22, 25))
    assert "far too many" in calibration[25].warnings[1]
