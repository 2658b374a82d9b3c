"""`steered` and `watching` against plain PyTorch hooks; no trace remains on the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from millm import SAE, steered, watching
from tests.fixtures.tiny import HOOK_LAYER

IDS = torch.tensor([[1, 40, 41, 42, 43, 44]])
PADDED = torch.tensor([[0, 0, 1, 40, 41, 42], [1, 50, 51, 52, 53, 54]])
MASK = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])


@torch.no_grad()
def logits(model: PreTrainedModel, ids: Tensor = IDS, **more: Any) -> Tensor:
    return model(ids, **more).logits


def hooks_of(model: nn.Module) -> list[object]:
    """Transformers may have left its own recorders of hidden states."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called", "_forward_hooks_with_kwargs")
    return [hook for module in model.modules() for kind in kinds for hook in getattr(module, kind)]


def with_hook(model: PreTrainedModel, change: Callable[[Tensor], Tensor], ids: Tensor = IDS) -> Tensor:
    """Logits with `change` applied to the output of the SAE's layer, by a plain PyTorch hook."""
    handle = model.model.layers[HOOK_LAYER].register_forward_hook(lambda _module, _args, out: change(out))
    output = logits(model, ids)
    handle.remove()
    return output


def but_first(delta: Tensor) -> Tensor:
    """[B, T, d], or [d] for every token, zero at position 0."""
    delta = delta.expand(1, IDS.shape[1], -1).clone()
    delta[:, 0] = 0
    return delta


def test_adding_equals_a_plain_hook(model: PreTrainedModel, sae: SAE) -> None:
    expected = with_hook(model, lambda x: x + but_first(6.0 * sae.direction(3) - 2.0 * sae.direction(8)))
    with steered(model, sae, {3: 6.0, 8: -2.0}):
        assert torch.equal(logits(model), expected)


def test_clamping_equals_the_definition(model: PreTrainedModel, sae: SAE) -> None:
    """The activation is set and decoded; the error term of the SAE stays."""

    def clamped(x: Tensor) -> Tensor:
        acts = sae.encode(x)
        held = acts.clone()
        held[..., 7] = 5.0
        return x + but_first(sae.decode(held) - sae.decode(acts))

    expected = with_hook(model, clamped)
    with steered(model, sae, [{"index": 7, "strength": 5.0, "mode": "clamp"}]):
        torch.testing.assert_close(logits(model), expected)


def test_watched_activations_equal_the_sae_on_the_hidden_state(model: PreTrainedModel, sae: SAE) -> None:
    with torch.no_grad():
        hidden = model(IDS, output_hidden_states=True).hidden_states[HOOK_LAYER + 1]
    acts = sae.activations(hidden)[0]
    with watching(model, sae, features=range(8), top_k=5) as seen:
        logits(model)
    torch.testing.assert_close(seen[0].activations, acts[:, :8])
    torch.testing.assert_close(seen[0].top_activations, acts.topk(5).values)
    assert seen[0].tokens == IDS[0].tolist()


def test_the_model_is_restored(model: PreTrainedModel, sae: SAE) -> None:
    hooks, before, weights = (
        hooks_of(model),
        logits(model),
        {name: value.clone() for name, value in model.state_dict().items()},
    )
    with steered(model, sae, {3: 6.0}) as effect, watching(model, sae, [3]):
        assert not torch.equal(logits(model), before)
        assert effect.tokens_steered == IDS.shape[1] - 1
    assert hooks_of(model) == hooks
    assert torch.equal(logits(model), before)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_watching_alone_changes_no_logits(model: PreTrainedModel, sae: SAE) -> None:
    before = logits(model)
    with watching(model, sae, [3], top_k=3):
        assert torch.equal(logits(model), before)


def test_the_model_is_restored_after_an_error(model: PreTrainedModel, sae: SAE) -> None:
    hooks, before = hooks_of(model), logits(model)
    with pytest.raises(IndexError), steered(model, sae, {3: 6.0}):
        logits(model, torch.tensor([[1, 10_000]]))
    assert hooks_of(model) == hooks
    assert torch.equal(logits(model), before)


def test_a_failed_pass_does_not_affect_the_next(model: PreTrainedModel, sae: SAE) -> None:
    with steered(model, sae, {3: 6.0}):
        steady = logits(model)
        with pytest.raises(IndexError):
            logits(model, torch.tensor([[1, 10_000]]))
        assert torch.equal(logits(model), steady)


def test_nested_blocks_add_up(model: PreTrainedModel, sae: SAE, deeper_sae: Path) -> None:
    deeper = SAE.load(deeper_sae)
    before = logits(model)
    with steered(model, sae, {3: 6.0, 8: 2.0}):
        both = logits(model)
    with steered(model, sae, {3: 6.0}):
        outer = logits(model)
        with steered(model, sae, {8: 2.0}), steered(model, deeper, {5: 0.0}):
            torch.testing.assert_close(logits(model), both)
        with steered(model, deeper, {5: 4.0}):
            assert not torch.equal(logits(model), outer)
        assert torch.equal(logits(model), outer)
    assert torch.equal(logits(model), before)


def test_blocks_may_close_in_any_order(model: PreTrainedModel, sae: SAE) -> None:
    hooks, before = hooks_of(model), logits(model)
    first, second = steered(model, sae, {3: 6.0}), steered(model, sae, {8: 2.0})
    with steered(model, sae, {8: 2.0}):
        expected = logits(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.equal(logits(model), expected)
    second.__exit__(None, None, None)
    assert hooks_of(model) == hooks
    assert torch.equal(logits(model), before)


def test_two_models_are_independent(model: PreTrainedModel, sae: SAE, tiny_model: Path) -> None:
    other = type(model).from_pretrained(tiny_model)
    before = logits(other)
    with steered(model, sae, {3: 6.0}):
        assert torch.equal(logits(other), before)


@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
def test_a_cache_does_not_change_the_result(positions: Any, model: PreTrainedModel, sae: SAE) -> None:
    """Token by token in `generate`, and the same text in one pass with a plain hook."""
    with steered(model, sae, {3: 6.0}, positions=positions), watching(model, sae, [3]) as seen:
        written = model.generate(IDS, max_new_tokens=6, do_sample=False)
    indices = torch.arange(written.shape[1] - 1)
    steered_at = {"all": indices > 0, "prompt": (indices > 0) & (indices < 6), "generated": indices >= 5}[positions]
    delta = steered_at[:, None] * (6.0 * sae.direction(3))
    expected = with_hook(model, lambda x: x + delta, written[:, :-1])
    assert expected[0, 5:].argmax(-1).tolist() == written[0, 6:].tolist()
    assert seen[0].tokens == written[0, :-1].tolist()


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_equals_its_single_rows(side: str, model: PreTrainedModel, sae: SAE) -> None:
    """Padding is neither steered nor watched; position 0 is the first token of each text."""
    ids = PADDED if side == "left" else torch.cat([PADDED[:, 2:], PADDED[:, :2]], dim=1)
    mask = MASK if side == "left" else torch.cat([MASK[:, 2:], MASK[:, :2]], dim=1)
    options = {"positions": "generated"}
    with steered(model, sae, {3: 6.0}, **options) as effect, watching(model, sae, [3, 7], tokens="prompt") as seen:
        together = logits(model, ids, attention_mask=mask)
    alone = []
    for row in range(2):
        text = ids[row][mask[row] == 1][None]
        with steered(model, sae, {3: 6.0}, **options) as own_effect, watching(model, sae, [3, 7]) as own:
            torch.testing.assert_close(logits(model, text)[0], together[row][mask[row] == 1], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(own[0].activations, seen[row].activations, rtol=1e-4, atol=1e-4)
        assert own[0].tokens == seen[row].tokens == text[0].tolist()
        assert own[0].positions == seen[row].positions
        alone.append(own_effect.tokens_steered)
    assert effect.tokens_steered == sum(alone) == 2


def test_generate_with_left_padding(model: PreTrainedModel, sae: SAE) -> None:
    with steered(model, sae, {3: 6.0}):
        together = model.generate(PADDED, attention_mask=MASK, max_new_tokens=5, do_sample=False)
        alone = model.generate(PADDED[:1, 2:], max_new_tokens=5, do_sample=False)
    assert together[0, 6:].tolist() == alone[0, 4:].tolist()


def test_beams_and_samples_are_steered(model: PreTrainedModel, sae: SAE) -> None:
    with steered(model, sae, {3: 6.0}) as effect:
        model.generate(IDS, max_new_tokens=4, num_beams=3, do_sample=False)
        assert effect.tokens_steered == 3 * (5 + 3)
        model.generate(IDS, max_new_tokens=4, num_return_sequences=2, do_sample=True)
        assert effect.tokens_steered == 2 * (5 + 3)


def test_the_decoder_alone_is_steered_as_well(model: PreTrainedModel, sae: SAE) -> None:
    with torch.no_grad(), steered(model, sae, {3: 6.0}):
        assert torch.equal(model.lm_head(model.model(IDS).last_hidden_state), logits(model))


def test_embeddings_instead_of_ids(model: PreTrainedModel, sae: SAE) -> None:
    with steered(model, sae, {3: 6.0}), watching(model, sae, [3]) as seen:
        expected = logits(model)
        with torch.no_grad():
            output = model(inputs_embeds=model.get_input_embeddings()(IDS)).logits
        assert torch.equal(output, expected)
        assert seen[0].tokens == [None] * 6


def test_gradients_flow_through_the_hook(model: PreTrainedModel, sae: SAE) -> None:
    embeddings = model.get_input_embeddings()(IDS).detach().requires_grad_()
    with steered(model, sae, [{"index": 7, "strength": 5.0, "mode": "clamp"}]):
        model(inputs_embeds=embeddings).logits.sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


def test_another_hook_point(model: PreTrainedModel, tiny_sae: Path) -> None:
    sae = SAE.load(tiny_sae, hook_point="blocks.2.hook_mlp_out")
    handle = model.model.layers[2].mlp.register_forward_hook(
        lambda _module, _args, out: out + but_first(6.0 * sae.direction(3))
    )
    expected = logits(model)
    handle.remove()
    with steered(model, sae, {3: 6.0}):
        assert torch.equal(logits(model), expected)
