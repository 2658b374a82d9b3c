"""The hook's tables: each row of a batch has its own steering and readings, row 0 none."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from millm.errors import InsufficientMemory, InvalidSteering
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.config import FEATURE_BANK_SIZE, MAX_TABLE_ROWS, MAX_WATCHED_FEATURES
from millm.sae.formats import canonicalise
from millm.sae.hook_step import HookRow, TokenSpan
from millm.sae.steering import FeatureSetting, Mode, Watch, coefficients
from millm.sae.steering_hook import RowTable, SteeringHook
from tests.fixtures.tiny import FEATURES, WIDTH, write_sae

TOKENS = 7
PROMPT = TokenSpan(0, TOKENS, TOKENS)


def open_sae(folder: Path, **config: object) -> SparseAutoencoder:
    return SparseAutoencoder.open(canonicalise(write_sae(folder / "source", **config), folder / "canonical"))


@pytest.fixture
def sae(tmp_path: Path) -> SparseAutoencoder:
    return open_sae(tmp_path)


@pytest.fixture
def hook(sae: SparseAutoencoder) -> SteeringHook:
    return SteeringHook(sae, torch.device("cpu"))


def row(*features: tuple[int, float, Mode], watch: Watch | None = None) -> HookRow:
    settings = (FeatureSetting(index=index, strength=strength, mode=mode) for index, strength, mode in features)
    return HookRow(tuple(coefficients(setting) for setting in settings), watch)


def hidden(batch: int) -> Tensor:
    return torch.randn(batch, TOKENS, WIDTH, generator=torch.Generator().manual_seed(3)) * 4  # [B, T, d]


def all_tokens(batch: int) -> tuple[list[list[bool]], list[TokenSpan]]:
    """All tokens are steered, and are prompt tokens."""
    return [[True] * TOKENS] * batch, [PROMPT] * batch


ROWS = [
    row((3, 5.0, "add"), (9, -2.0, "add")),
    row((11, 6.0, "clamp"), (3, 1.0, "add")),
    row((40, 0.0, "scale"), (41, 3.0, "scale"), (42, 2.0, "min_clamp")),
    row((7, 0.0, "ablate")),
]


def test_a_batch_equals_its_single_rows(hook: SteeringHook) -> None:
    """Rows of different kinds and widths together, an unsteered one among them."""
    indices = [0, *(hook.acquire(hook_row) for hook_row in ROWS)]
    x = hidden(len(indices))
    hook.prepare(indices, *all_tokens(len(indices)))
    together = hook(x)
    assert together is not None
    assert torch.equal(together[0], x[0])
    for batch_index, index in enumerate(indices[1:], 1):
        hook.prepare([index], *all_tokens(1))
        alone = hook(x[batch_index : batch_index + 1])
        assert alone is not None
        torch.testing.assert_close(together[batch_index], alone[0], rtol=0, atol=1e-5)
        assert not torch.equal(alone[0], x[batch_index])


def test_row_zero_leaves_the_tensor_untouched(hook: SteeringHook) -> None:
    hook.acquire(ROWS[0])
    hook.prepare([0, 0], *all_tokens(2))
    assert hook(hidden(2)) is None
    assert hook.output.ratio is None


def test_only_tokens_of_the_mask_are_steered(hook: SteeringHook) -> None:
    mask = [[token % 2 == 1 for token in range(TOKENS)]]
    for hook_row in ROWS[:2]:
        hook.prepare([hook.acquire(hook_row)], mask, [PROMPT])
        x = hidden(1)
        steered = hook(x)
        assert steered is not None
        touched = (steered != x).any(dim=-1)[0].tolist()
        assert not any(touched[0::2])
        assert any(touched[1::2])


def test_half_precision_is_added_in_float32(hook: SteeringHook) -> None:
    index = hook.acquire(ROWS[0])
    hook.prepare([index], *all_tokens(1))
    x = hidden(1).bfloat16()
    steered, precise = hook(x), hook(x.float())
    assert steered is not None
    assert precise is not None
    assert steered.dtype == torch.bfloat16
    assert torch.equal(steered, precise.bfloat16())


def test_each_row_is_read_before_or_after_its_own_steering(hook: SteeringHook, sae: SparseAutoencoder) -> None:
    before = Watch(sae="tiny", tokens="all", features=(3, 50), when="before")
    after = Watch(sae="tiny", tokens="all", features=(3,), top_k=2, when="after")
    strong = (3, 60.0, "add")
    indices = [hook.acquire(row(strong, watch=before)), hook.acquire(row(strong, watch=after)), hook.acquire(row())]
    x = hidden(3)
    hook.prepare(indices, *all_tokens(3))
    steered = hook(x)
    assert steered is not None
    assert hook.output.watched is not None
    assert hook.output.top_indices is not None
    torch.testing.assert_close(hook.output.watched[0], sae.activations(x[0])[:, [3, 50]])
    torch.testing.assert_close(hook.output.watched[1, :, :1], sae.activations(steered[1])[:, [3]])
    assert (hook.output.top_indices[1, :, 0] == 3).all()
    assert torch.equal(steered[2], x[2])


def test_watching_alone_leaves_the_tensor_untouched(hook: SteeringHook) -> None:
    hook.prepare([hook.acquire(row(watch=Watch(sae="tiny", tokens="all", features=(1,))))], *all_tokens(1))
    assert hook(hidden(1)) is None
    assert hook.output.watched is not None


@pytest.mark.parametrize("rescale", [False, True])
def test_a_topk_sae_is_read_in_full(tmp_path: Path, rescale: bool) -> None:
    """Features depend on each other; the expected clamp follows the definition."""
    topk = open_topk(tmp_path, rescale)
    hook = SteeringHook(topk, torch.device("cpu"))
    index = hook.acquire(row((5, 7.0, "clamp"), watch=Watch(sae="tiny", tokens="all", features=(5, 6))))
    x = hidden(1)
    hook.prepare([index], *all_tokens(1))
    steered = hook(x)
    assert steered is not None
    assert hook.output.watched is not None
    activations = topk.activations(x)
    unit = topk.features([5]).dec[0]
    torch.testing.assert_close(steered, x + (7.0 - activations[..., 5:6]) * unit)
    torch.testing.assert_close(hook.output.watched, activations[..., [5, 6]])


def open_topk(folder: Path, rescale: bool) -> SparseAutoencoder:

    source = write_sae(folder / "source", architecture="topk", k=8, rescale_acts_by_decoder_norm=rescale)
    weights = load_file(source / "sae_weights.safetensors")
    del weights["threshold"]
    weights["W_dec"] = weights["W_dec"] * 2.5
    save_file(weights, source / "sae_weights.safetensors")
    return SparseAutoencoder.open(canonicalise(source, folder / "canonical"))


def test_equal_steerings_share_a_row_until_the_last_release(hook: SteeringHook) -> None:
    first, second = hook.acquire(ROWS[1]), hook.acquire(ROWS[1])
    assert first == second
    others = [hook.acquire(row((feature, 1.0, "clamp"))) for feature in range(MAX_TABLE_ROWS - 1)]
    with pytest.raises(InsufficientMemory):
        hook.acquire(row((90, 1.0, "add")))
    hook.release(first)
    with pytest.raises(InsufficientMemory):
        hook.acquire(row((90, 1.0, "add")))
    hook.release(second)
    assert hook.acquire(row((90, 1.0, "add"))) == first
    for index in others:
        hook.release(index)


def test_a_released_row_leaves_no_values(hook: SteeringHook) -> None:
    """A reused row has exactly the steering of its new user."""
    wide = row(*((feature, 9.0, "clamp") for feature in range(20)), (50, 30.0, "add"))
    index = hook.acquire(wide)
    hook.release(index)
    narrow = hook.acquire(ROWS[3])
    assert narrow == index
    x = hidden(1)
    hook.prepare([narrow], *all_tokens(1))
    reused = hook(x)
    fresh = SteeringHook(hook.sae, torch.device("cpu"))
    fresh.prepare([fresh.acquire(ROWS[3])], *all_tokens(1))
    expected = fresh(x)
    assert reused is not None
    assert expected is not None
    assert torch.equal(reused, expected)


def test_a_failed_acquire_reserves_nothing(hook: SteeringHook) -> None:
    wide = Watch(sae="tiny", features=tuple(range(FEATURES)) + tuple(range(MAX_WATCHED_FEATURES + 1 - FEATURES)))
    with pytest.raises(InvalidSteering, match="can be watched"):
        hook.acquire(row(watch=wide))
    with pytest.raises(InvalidSteering, match="at most 64"):
        hook.acquire(row(*((feature, 1.0, "clamp") for feature in range(65))))
    for _ in range(MAX_TABLE_ROWS):
        hook.acquire(row((1, float(_), "add")))


def test_row_numbers_are_unique() -> None:
    table: RowTable[str] = RowTable(3)
    assert {table.acquire(key)[0] for key in "abc"} == {1, 2, 3}
    assert table.free == 0
    assert FEATURE_BANK_SIZE >= MAX_WATCHED_FEATURES
