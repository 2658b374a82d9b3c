"""Feature queries match each model's norm and head, numpy's cosines, and known sums."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel, RobertaConfig, RobertaModel

from millm.engine.attached_saes import AttachedSaes
from millm.engine.logit_lens import answer_query, unembed
from millm.engine.messages import ComputeDirections, Decompose, Decomposed, DescribeFeature, FeatureDescribed, SaeFacts
from millm.engine.quantization import Int8Linear
from millm.errors import InvalidRequest, InvalidSteering, ModelNotLoaded, SaeDetached, SaeNotFound
from millm.sae import hooks
from millm.sae.autoencoder import SparseAutoencoder, matching_pursuit
from millm.sae.formats import canonicalise
from millm.sae.steering import FeatureSetting, SaeSteering, Steering, coefficients
from millm.sae.steering_hook import SteeringHook
from tests.engine import architectures
from tests.engine.conftest import Engine
from tests.engine.test_core_generation import add, decoder, steer  # noqa: F401  a fixture among them
from tests.fixtures.tiny import FEATURES, WIDTH, write_sae


def build(name: str) -> PreTrainedModel:
    """Norms that are not all ones, and no cap on the logits, which no direction includes."""
    model = architectures.build(name)
    model.config.final_logit_softcapping = None
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim == 1:
                weights.add_(torch.randn(weights.shape) * 0.5)
    return model


def vector(seed: int = 5) -> Tensor:
    return torch.randn(32, generator=torch.Generator().manual_seed(seed))


# --------------------------------------------------------------------------------------------------- next tokens


def test_logits_match_the_written_out_formula() -> None:
    """As TransformerLens folds norms: RMSNorm's weight, Gemma's 1 + w, LayerNorm's centring."""
    v = vector()
    llama, gemma, gpt2 = (build(name) for name in ("llama", "gemma2", "gpt2"))
    expected = {
        llama: (v * llama.model.norm.weight) @ llama.lm_head.weight.T,
        gemma: (v * (1 + gemma.model.norm.weight)) @ gemma.lm_head.weight.T,
        gpt2: ((v - v.mean()) * gpt2.transformer.ln_f.weight) @ gpt2.lm_head.weight.T,
    }
    for model, logits in expected.items():
        torch.testing.assert_close(unembed(model, v), logits.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3", "gpt2", "gpt_neox", "opt", "olmo2", "bloom", "gptj"])
def test_logits_match_a_small_perturbation_of_the_model(name: str) -> None:
    """The derivative of the model's logits, orthogonal to the hidden state so that the norm's division is constant."""
    model = build(name)
    x = torch.ones(32)
    x[1::2] = -1.0
    v = vector()
    v = v - v @ x / 32 * x
    v -= v.mean()  # across x, and across what a LayerNorm takes away
    last = hooks.resolve_hook_point(model, "blocks.2.hook_resid_post")

    def logits(step: Tensor) -> Tensor:
        handle = last.register(lambda h: (x + step * v).expand_as(h))
        try:
            return model(torch.tensor([[5, 6]])).logits[0, -1]  # type: ignore[no-any-return]
        finally:
            handle.remove()

    _, slope = torch.autograd.functional.jvp(logits, torch.tensor(0.0), torch.tensor(1.0))
    torch.testing.assert_close(unembed(model, v), slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "gptj"], ids=["plain", "with a bias"])
def test_packed_head_matches_the_plain_head(name: str) -> None:
    model = build(name)
    plain = unembed(model, vector())
    assert plain is not None
    head = model.get_output_embeddings()
    model.lm_head = Int8Linear(head.weight.detach(), head.bias, replaced_count=0)
    packed = unembed(model, vector())
    assert packed is not None
    assert float((packed - plain).norm() / plain.norm()) < 0.02
    assert int(packed.argmax()) == int(plain.argmax())


def test_half_precision_is_close() -> None:
    model = build("gemma2")
    exact = unembed(model, vector())
    half = unembed(model.bfloat16(), vector())
    assert exact is not None
    assert half is not None
    assert half.dtype == torch.float32
    assert float((half - exact).norm() / exact.norm()) < 0.01


def test_no_logits_without_a_head_or_of_another_width() -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    assert unembed(RobertaModel(RobertaConfig(vocab_size=99, **sizes)), vector()) is None
    assert unembed(build("llama"), torch.ones(64)) is None


# ----------------------------------------------------------------------------------------------------- a feature


def described(engine: Engine, **more: object) -> FeatureDescribed:
    event = engine.loop.run(engine.client.query_features(DescribeFeature(id="describe", sae="tiny", **more)))  # type: ignore[arg-type]
    assert isinstance(event, FeatureDescribed)
    return event


def test_feature_description(engine: Engine, reference: PreTrainedModel, decoder: Tensor) -> None:  # noqa: F811
    found = described(engine, index=7, tokens=5, neighbours=4)
    logits = ((decoder[7] * reference.model.norm.weight) @ reference.lm_head.weight.T).detach()
    assert found.decoder_norm == pytest.approx(1.0, abs=1e-6)
    for pairs, largest in ((found.promoted, True), (found.suppressed, False)):
        top = logits.topk(5, largest=largest)
        assert [token for token, _ in pairs] == top.indices.tolist()
        assert [value for _, value in pairs] == pytest.approx(top.values.tolist(), abs=1e-5)
    cosines = decoder.numpy() @ decoder[7].numpy()
    nearest = [int(index) for index in np.argsort(-cosines) if index != 7][:4]
    assert [index for index, _ in found.neighbours] == nearest
    assert [value for _, value in found.neighbours] == pytest.approx(cosines[nearest].tolist(), abs=1e-5)
    assert described(engine, index=7, tokens=0, neighbours=0).neighbours == ()


def attached(model: PreTrainedModel, source: Path, root: Path, point: str) -> AttachedSaes:
    sae = SparseAutoencoder.open(canonicalise(source, root))
    place = hooks.resolve_hook_point(model, point)
    facts = SaeFacts(
        sae="tiny", architecture=sae.config.architecture, layer=place.layer, hook_point=place.name, features=FEATURES,
        steerable=sae.config.steerable, exclude_special_tokens=False, residual_norm=1.0, variance_explained=None,
        l0=1.0, warnings=(), sha256="0", id="attached",
    )  # fmt: skip
    attached_saes = AttachedSaes()
    attached_saes.attach(SteeringHook(sae, torch.device("cpu")), place, facts)
    return attached_saes


@pytest.mark.parametrize(
    ("point", "config", "speaks"),
    [
        ("blocks.1.hook_resid_pre", {}, True),
        ("blocks.1.hook_mlp_out", {}, True),
        ("blocks.1.attn.hook_z", {}, False),
        ("blocks.1.hook_resid_mid", {"architecture": "jumprelu_transcoder", "d_out": 32}, False),
        (
            "blocks.1.hook_resid_mid",
            {"architecture": "jumprelu_transcoder", "d_out": 32, "hook_name_out": "blocks.1.hook_mlp_out"},
            True,
        ),
    ],
    ids=["stream", "added to it", "heads", "transcoder to nowhere", "transcoder to the MLP's output"],
)
def test_tokens_only_for_residual_stream_hooks(
    tmp_path: Path, point: str, config: dict[str, object], speaks: bool
) -> None:
    model = build("llama")
    attached_saes = attached(model, write_sae(tmp_path / "sae", width=32, **config), tmp_path, point)
    found = answer_query(model, attached_saes, DescribeFeature(id="d", sae="tiny", index=3))
    assert isinstance(found, FeatureDescribed)
    assert bool(found.promoted) == bool(found.suppressed) == speaks
    assert len(found.neighbours) == 10


# ---------------------------------------------------------------------------------------------------- directions


def test_directions_match_the_added_deltas(engine: Engine, decoder: Tensor) -> None:  # noqa: F811
    hold = FeatureSetting(index=5, strength=3.0, mode="clamp")
    for steering, varies in ((steer(add(3, 8.0), add(9, -4.0)), False), (steer(add(3, 8.0), add(9, -4.0), hold), True)):
        found = engine.loop.run(engine.client.query_features(ComputeDirections(id="directions", steering=steering)))
        (direction,) = found.directions  # type: ignore[union-attr]
        expected = (8.0 * decoder[3] - 4.0 * decoder[9]).numpy()
        np.testing.assert_allclose(np.frombuffer(direction.vector, dtype="<f4"), expected, atol=1e-6)
        assert direction.norm == pytest.approx(float(np.linalg.norm(expected)), rel=1e-6)
        assert (direction.layer, direction.hook_point) == (1, "blocks.1.hook_resid_post")
        assert direction.varies == varies


# ------------------------------------------------------------------------------------------------ decompositions


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> SparseAutoencoder:
    """Wide enough for 96 distinguishable directions; rows of many lengths."""
    folder = tmp_path_factory.mktemp("wide")
    return SparseAutoencoder.open(canonicalise(write_sae(folder / "sae", width=256), folder))


@given(
    strengths=st.dictionaries(
        st.integers(0, FEATURES - 1), st.floats(1, 9).flatmap(lambda s: st.sampled_from([s, -s])), max_size=8
    )
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sum_of_features_is_decomposed(wide: SparseAutoencoder, strengths: dict[int, float]) -> None:
    rows = wide.features(list(strengths)).dec
    total = torch.tensor(list(strengths.values())) @ rows if strengths else torch.zeros(256)
    features, residual = matching_pursuit(wide, total, max_features=16)
    assert dict(features) == pytest.approx(strengths, abs=1e-2)
    assert [abs(strength) for _, strength in features] == sorted((abs(s) for _, s in features), reverse=True)
    assert residual < 1e-4


def test_residual_of_a_decomposition(wide: SparseAutoencoder) -> None:
    """The residual of numpy's least squares with these features."""
    target = torch.randn(256, generator=torch.Generator().manual_seed(2))
    features, residual = matching_pursuit(wide, target, max_features=4)
    rows = wide.features([index for index, _ in features]).dec.numpy()
    fit = np.linalg.lstsq(rows.T, target.numpy(), rcond=None)[0]
    assert [strength for _, strength in features] == pytest.approx(fit.tolist(), abs=1e-4)
    left = np.linalg.norm(target.numpy() - fit @ rows) / np.linalg.norm(target.numpy())
    assert len(features) == 4
    assert residual == pytest.approx(float(left), abs=1e-5)


def test_queries_through_the_engine(engine: Engine, decoder: Tensor) -> None:  # noqa: F811
    packed = (6.0 * decoder[11]).numpy().astype("<f4").tobytes()
    found = engine.loop.run(engine.client.query_features(Decompose(id="decompose", sae="tiny", vector=packed)))
    assert isinstance(found, Decomposed)
    assert found.features == ((11, pytest.approx(6.0, abs=1e-4)),)


# ------------------------------------------------------------------------------------------------------ refusals


def detached(name: str) -> Steering:
    return Steering(by_sae=(SaeSteering(name, (coefficients(add(3, 1.0)),), "an-earlier-one"),))


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (DescribeFeature(id="x", sae="other", index=3), SaeNotFound),
        (DescribeFeature(id="x", sae="tiny", index=FEATURES), InvalidSteering),
        (DescribeFeature(id="x", sae="tiny", index=-1), InvalidSteering),
        (DescribeFeature(id="x", sae="tiny", index=3, tokens=65), InvalidRequest),
        (DescribeFeature(id="x", sae="tiny", index=3, neighbours=-1), InvalidRequest),
        (ComputeDirections(id="x", steering=steer(add(FEATURES, 1.0))), InvalidSteering),
        (ComputeDirections(id="x", steering=detached("tiny")), SaeDetached),
        (Decompose(id="x", sae="other", vector=bytes(4 * WIDTH)), SaeNotFound),
        (Decompose(id="x", sae="tiny", vector=bytes(4 * WIDTH - 1)), InvalidRequest),
        (Decompose(id="x", sae="tiny", vector=np.full(WIDTH, np.nan, "<f4").tobytes()), InvalidRequest),
        (Decompose(id="x", sae="tiny", vector=bytes(4 * WIDTH), most=0), InvalidRequest),
    ],
)
def test_invalid_queries_are_rejected(
    engine: Engine, command: DescribeFeature | ComputeDirections | Decompose, error: type[Exception]
) -> None:
    with pytest.raises(error):
        engine.loop.run(engine.client.query_features(command))


def test_queries_without_a_model_are_rejected() -> None:
    with pytest.raises(ModelNotLoaded):
        answer_query(None, AttachedSaes(), DescribeFeature(id="x", sae="tiny", index=3))


def test_transcoder_has_no_direction(tmp_path: Path) -> None:
    model = build("llama")
    source = write_sae(tmp_path / "sae", width=32, architecture="jumprelu_transcoder", d_out=32)
    attached_saes = attached(model, source, tmp_path, "blocks.1.hook_resid_mid")
    with pytest.raises(InvalidSteering, match="watched but not steered"):
        answer_query(model, attached_saes, ComputeDirections(id="x", steering=steer(add(3, 1.0))))


def test_decoder_file_is_not_read_into_memory(wide: SparseAutoencoder) -> None:
    """Only the rows' norms stay in memory; a decoder of gigabytes would not fit twice."""
    fresh = SparseAutoencoder(wide.config, wide.sha256, dict(wide._tensors))
    along = fresh.projections(torch.ones(256))
    assert set(fresh._device_cache) == {("decoder_norms", torch.device("cpu"))}
    torch.testing.assert_close(along, wide.features(range(FEATURES)).dec.sum(-1), rtol=1e-4, atol=1e-4)
