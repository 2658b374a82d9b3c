"""Scanned features match the SAE's encoding of hidden states from a plain hook."""

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from millm.engine.messages import AttachSae, FeaturesScanned, ScanFeatures
from millm.errors import ContextLengthExceeded, InvalidRequest, SaeDetached, SaeNotFound
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.formats import canonicalise
from millm.sae.steering import Steering
from tests.engine.conftest import Engine
from tests.engine.engine_harness import CALIBRATION
from tests.engine.test_core_generation import add, steer
from tests.fixtures.tiny import CONTEXT, HOOK_LAYER
from tests.sae.test_steering_hook import open_topk

LONG = (1, *random.Random(7).choices(range(3, 300), k=70), 2, 0, 9)
COUNTED = {
    (1, 40, 2, 50, 60): [1, 3, 4],
    (40, 50): [1],
    (40, 2, 0): [1, 2],
    (40,): [0],
    (1,): [0],
    LONG: [*range(1, 71), 73],
}
PUSH: Steering = steer(add(3, 30.0))


def hidden(model: LlamaForCausalLM, tokens: tuple[int, ...], layer: int = HOOK_LAYER) -> Tensor:
    """After the layer  # [T, d]"""
    seen: list[Tensor] = []
    handle = model.model.layers[layer].register_forward_hook(lambda _m, _a, out: seen.append(out[0]))
    with torch.inference_mode():
        model(torch.tensor([tokens]))
    handle.remove()
    return seen[0]


def scan(engine: Engine, tokens: tuple[int, ...], **more: object) -> FeaturesScanned:
    fields = {"id": "scan", "sae": "tiny", "tokens": tokens, **more}
    return engine.loop.run(engine.client.scan_features(ScanFeatures(**fields)))[0]  # type: ignore[arg-type]


def assert_is(found: FeaturesScanned, activations: Tensor) -> None:
    """Activations [N, F] of the tokens that are scanned."""
    assert found.tokens == len(activations)
    fired = (activations > 0).sum(0)
    assert [one.index for one in found.features] == fired.nonzero()[:, 0].tolist()
    assert [one.count for one in found.features] == fired[fired > 0].tolist()
    for one in found.features:
        assert one.total == pytest.approx(float(activations[:, one.index].double().sum()), rel=1e-4)
        assert one.largest == pytest.approx(float(activations[:, one.index].max()), rel=1e-4)


@pytest.mark.parametrize("tokens", COUNTED, ids=len)
def test_scan_matches_the_encoder(
    engine: Engine, reference: LlamaForCausalLM, tiny_sae: Path, canonical_root: Path, tokens: tuple[int, ...]
) -> None:
    sae = SparseAutoencoder.open(canonicalise(tiny_sae, canonical_root))
    assert_is(scan(engine, tokens), sae.encode(hidden(reference, tokens)[COUNTED[tokens]]))  # decoder rows: length 1


def test_topk_sae_is_scanned(engine: Engine, reference: LlamaForCausalLM, tmp_path: Path, canonical_root: Path) -> None:
    """On another layer; the first SAE's steering of a running request does not affect the scan."""
    sae = open_topk(tmp_path, rescale=False)
    attach = AttachSae(
        id="attach-topk", sae="topk", path=str(tmp_path / "source"), canonical_root=str(canonical_root),
        calibration_ids=CALIBRATION, model_name="tiny-llama", hook_point=f"blocks.{HOOK_LAYER + 1}.hook_resid_post",
    )  # fmt: skip
    engine.loop.run(engine.client.attach(attach))
    engine.client.set_active_steering(PUSH)
    try:
        found = scan(engine, LONG, sae="topk", attachment="attach-topk")
    finally:
        engine.client.set_active_steering(None)
        engine.loop.run(engine.client.detach("topk"))
    assert_is(found, sae.encode(hidden(reference, LONG, HOOK_LAYER + 1)[COUNTED[LONG]]) * 2.5)  # its rows' length
    assert sum(one.count for one in found.features) <= 8 * found.tokens


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"tokens": ()}, InvalidRequest),
        ({"tokens": (5,) * (CONTEXT + 1)}, ContextLengthExceeded),
        ({"sae": "other"}, SaeNotFound),
        ({"attachment": "an-earlier-one"}, SaeDetached),
    ],
)
def test_invalid_scans_are_rejected(engine: Engine, more: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        scan(engine, **{"tokens": (1, 2), **more})  # type: ignore[arg-type]
