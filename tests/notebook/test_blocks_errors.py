"""Invalid blocks are rejected with the server's errors, before any change to the model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, DynamicCache, PreTrainedModel

from millm import SAE, MillmError, errors, steered, watching
from tests.fixtures.tiny import write_sae
from tests.notebook.test_blocks import IDS, hooks_of, logits

STEERINGS: list[tuple[Any, dict[str, Any], str]] = [
    ({96: 1.0}, {}, r"feature 96 is not in 0..95 of SAE 'tiny at blocks.1.hook_resid_post'"),
    ({-1: 1.0}, {}, "greater than or equal to 0"),
    ({"3": 1.0}, {}, "valid integer"),
    ({3: float("nan")}, {}, "finite number"),
    ({3: 2e6}, {}, "within ±1,000,000"),
    ([{"index": 3, "strength": 1.0}, {"index": 3}], {}, "given twice"),
    ([{"index": 3, "mode": "push"}], {}, "'add', 'clamp', 'min_clamp', 'scale' or 'ablate'"),
    ([{"index": 3, "strenght": 1.0}], {}, "strenght"),
    ([{"index": 3, "strength": 0.5, "unit": "norm"}], {}, r"sae.measure\(model, tokenizer\)"),
    ([{"index": 3, "strength": 0.5, "unit": "max_act"}], {}, "maximum activation"),
    ([{"index": 3, "mode": "ablate", "unit": "norm"}], {}, "norm"),
    ([{"index": index, "mode": "ablate"} for index in range(65)], {}, "64 of them in a mode other than 'add'"),
    (3, {}, "features"),
    ({3: 1.0}, {"positions": "answer"}, "'all', 'prompt' or 'generated'"),
    ({3: 1.0}, {"skip": "first"}, "'bos', 'special' or 'none'"),
    ({3: 1.0}, {"skip": "special"}, "give `tokenizer`"),
    ([{"index": 3, "mode": "ablate"}], {"skip": "none"}, "skip 'none' is for mode 'add' only"),
]


@pytest.mark.parametrize(("features", "more", "message"), STEERINGS, ids=[message for _, _, message in STEERINGS])
def test_invalid_steerings_are_rejected(
    features: Any, more: dict[str, Any], message: str, model: PreTrainedModel, sae: SAE
) -> None:
    with pytest.raises(errors.InvalidSteering, match=message), steered(model, sae, features, **more):
        pass
    assert hooks_of(model) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": [96]}, r"feature 96 is not in 0..95"),
        ({"features": range(129)}, "at most 128"),
        ({"features": 3}, "features"),
        ({}, "name `features` to watch"),
        ({"top_k": 97}, "at most 96"),
        ({"features": [3], "tokens": "answer"}, "tokens"),
    ],
)
def test_invalid_watches_are_rejected(options: dict[str, Any], message: str, model: PreTrainedModel, sae: SAE) -> None:
    with pytest.raises(errors.InvalidSteering, match=message), watching(model, sae, **options):
        pass
    assert hooks_of(model) == []


def test_a_conflicting_block_leaves_the_others_unchanged(model: PreTrainedModel, sae: SAE, tiny_sae: Path) -> None:
    other = SAE.load(write_sae(tiny_sae.parent / "other-there", seed=9))
    with steered(model, sae, {3: 6.0}), watching(model, sae, [3]) as seen:
        steady = logits(model)
        for wrong, refused in (
            (steered(model, sae, {3: 1.0}), errors.InvalidSteering),
            (steered(model, sae, {4: 1.0}, positions="prompt"), errors.InvalidSteering),
            (steered(model, other, {4: 1.0}), errors.SaeMismatch),
            (watching(model, sae, [4]), errors.InvalidSteering),
        ):
            with pytest.raises(refused):
                wrong.__enter__()
            assert torch.equal(logits(model), steady)
        assert seen[0].activations.shape == (6, 1)
    assert hooks_of(model) == []


def test_an_sae_of_another_width_is_rejected(model: PreTrainedModel, tmp_path: Path) -> None:
    narrow = SAE.load(write_sae(tmp_path / "narrow", width=32))
    with pytest.raises(errors.SaeMismatch, match="expects width 32"), steered(model, narrow, {3: 1.0}):
        pass


def test_an_sae_of_a_missing_layer_is_rejected(model: PreTrainedModel, tmp_path: Path) -> None:
    deep = SAE.load(write_sae(tmp_path / "deep", layer=9))
    with pytest.raises(errors.SaeMismatch, match="layers 0 to 3"), watching(model, deep, [3]):
        pass


def test_an_sae_of_another_model_is_rejected(
    model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_sae(tmp_path / "foreign")
    monkeypatch.setattr(model, "name_or_path", "google/gemma-2-2b")
    with pytest.raises(errors.SaeModelMismatch, match="trained on tiny-llama"), steered(model, SAE.load(folder), {}):
        pass
    with steered(model, SAE.load(folder, allow_model_mismatch=True), {3: 6.0}) as effect:
        logits(model)
        assert effect.tokens_steered == 5


def test_other_models_are_rejected(sae: SAE) -> None:
    with pytest.raises(errors.InvalidRequest, match="not Linear"), steered(torch.nn.Linear(2, 2), sae, {}):  # type: ignore[arg-type]
        pass


def test_an_encoder_is_rejected(sae: SAE) -> None:
    bert = BertModel(BertConfig(hidden_size=48, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64))
    with pytest.raises(errors.SaeMismatch, match="only embed"), watching(bert, sae, [3]):
        pass


@torch.no_grad()
def test_an_unknown_end_of_the_prompt_is_rejected(model: PreTrainedModel, sae: SAE) -> None:
    """Several tokens after a cache, as in a second turn or a chunked prompt; `positions="all"` still works."""
    cache = DynamicCache(config=model.config)
    model(IDS[:, :3], past_key_values=cache, use_cache=True)
    with steered(model, sae, {3: 6.0}) as effect:
        model(IDS[:, 3:], past_key_values=cache, use_cache=True)
        assert effect.tokens_steered == 3
    with (
        steered(model, sae, {3: 6.0}, positions="generated"),
        pytest.raises(errors.InvalidRequest, match="end of the prompt is unknown"),
    ):
        model(IDS[:, 3:], past_key_values=cache, use_cache=True)
    with watching(model, sae, [3], tokens="prompt"), pytest.raises(MillmError, match="end of the prompt is unknown"):
        model(IDS[:, 3:], past_key_values=cache, use_cache=True)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(1, 1, 6, 6), r"\[batch, tokens\] = \[1, 6\]"),
        (torch.tensor([[1, 1, 0, 1, 1, 1]]), "padding between tokens"),
    ],
)
def test_masks_without_clear_padding_are_rejected(
    mask: torch.Tensor, message: str, model: PreTrainedModel, sae: SAE
) -> None:
    with steered(model, sae, {3: 6.0}), pytest.raises(errors.InvalidRequest, match=message):
        logits(model, attention_mask=mask)


def test_skip_special_is_rejected_for_embeddings(model: PreTrainedModel, sae: SAE, tokenizer: Any) -> None:
    with (
        steered(model, sae, {3: 6.0}, skip="special", tokenizer=tokenizer),
        pytest.raises(errors.InvalidSteering, match="give the model `input_ids`"),
    ):
        model(inputs_embeds=model.get_input_embeddings()(IDS))
