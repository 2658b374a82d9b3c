"""`top_k` is read at every n-th position only; named features are read at every token."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from millm.sae.autoencoder import TOKENS_PER_CHUNK, SparseAutoencoder, read_all_features
from millm.sae.formats import canonicalise
from millm.sae.hook_step import HookOutput, HookRow, TokenSpan, offsets_to_sample, offsets_to_watch
from millm.sae.steering import FeatureSetting, Mode, Watch, coefficients
from millm.sae.steering_hook import SteeringHook
from tests.fixtures.tiny import WIDTH, write_sae
from tests.sae.test_steering_hook import open_topk, row

LENGTH = 11
PROMPT = 7
CPU = torch.device("cpu")


class CountingSae(SparseAutoencoder):
    """An SAE that also counts its fully encoded tokens."""

    encoded = 0

    def encode(self, x: Tensor) -> Tensor:
        self.encoded += x.shape[:-1].numel()
        return super().encode(x)


def counting(sae: SparseAutoencoder) -> CountingSae:
    return CountingSae(sae.config, sae.sha256, sae._tensors)


@pytest.fixture
def jumprelu(tmp_path: Path) -> SparseAutoencoder:
    return SparseAutoencoder.open(canonicalise(write_sae(tmp_path / "source"), tmp_path / "canonical"))


@pytest.fixture(params=["jumprelu", "topk"])
def sae(request: pytest.FixtureRequest, tmp_path: Path, jumprelu: SparseAutoencoder) -> CountingSae:
    """One with single reads, and a topk SAE."""
    return counting(jumprelu if request.param == "jumprelu" else open_topk(tmp_path / "topk", rescale=False))


def hidden(batch: int, tokens: int = LENGTH) -> Tensor:
    return torch.randn(batch, tokens, WIDTH, generator=torch.Generator().manual_seed(5)) * 4  # [B, T, d]


def through(hook: SteeringHook, x: Tensor, rows: Sequence[HookRow | None], start: int = 0) -> HookOutput:
    """The output of one pass over x, whose first token is at `start`; all tokens are steered."""
    batch, tokens, _ = x.shape
    indices = [hook.acquire(row) if row else 0 for row in rows]
    hook.prepare(indices, [[True] * tokens] * batch, [TokenSpan(start, tokens, PROMPT)] * batch)
    hook(x)
    for index in filter(None, indices):
        hook.release(index)
    return hook.output


Tops = dict[int, tuple[Tensor, Tensor]]


def top(hook: SteeringHook, x: Tensor, rows: Sequence[HookRow | None], index: int, start: int = 0) -> Tops:
    """{position: (indices, values)} of row `index` of a pass, at its due tokens."""
    watch, output = rows[index].watch, through(hook, x, rows, start)
    assert watch is not None
    return {
        start + offset: (
            output.top_indices[index, offset, : watch.top_k],
            output.top_values[index, offset, : watch.top_k],
        )
        for offset in offsets_to_sample(watch, TokenSpan(start, x.shape[1], PROMPT), hook.sample_every)
    }


def assert_equal_tops(reading: Tops, expected: Tops) -> None:
    """The same features at the same positions, as active as far as the order of a sum lets them be."""
    assert list(reading) == list(expected)
    torch.testing.assert_close(reading, expected, rtol=1e-5, atol=1e-5)


def watching(**fields: object) -> Watch:
    return Watch(**{"sae": "tiny", "tokens": "all", "top_k": 3, **fields})  # type: ignore[arg-type]


def clamp(feature: int, watch: Watch | None = None) -> HookRow:
    return row((feature, 7.0, "clamp"), watch=watch)


spans = st.builds(TokenSpan, st.integers(0, 40), st.integers(1, 40), st.integers(1, 60))


@given(span=spans, every=st.integers(1, 9), cuts=st.lists(st.integers(1, 39)))
@pytest.mark.parametrize("tokens", ["generated", "prompt", "all"])
def test_sampled_offsets_depend_on_position_alone(tokens: str, span: TokenSpan, every: int, cuts: list[int]) -> None:
    """For any split into passes, and for n of the watch or of the SAE."""
    watch = watching(tokens=tokens, sample_every=every)
    edges = sorted({0, span.tokens, *(cut for cut in cuts if cut < span.tokens)})
    pieces = [TokenSpan(span.start + a, b - a, span.prompt_length) for a, b in pairwise(edges)]
    positions = [piece.start + offset for piece in pieces for offset in offsets_to_sample(watch, piece, sample_every=2)]
    all_positions = range(span.start, span.start + span.tokens)
    is_watched = {
        "all": lambda p: True,
        "prompt": lambda p: p < span.prompt_length,
        "generated": lambda p: p >= span.prompt_length,
    }
    expected = [p for p in all_positions if is_watched[tokens](p) and p % every == 0]
    assert positions == expected
    assert [span.start + offset for offset in offsets_to_sample(watching(tokens=tokens), span, every)] == expected
    assert [span.start + offset for offset in offsets_to_watch(watch, span)] == [
        p for p in all_positions if is_watched[tokens](p)
    ]
    assert (
        offsets_to_sample(watching(top_k=0, features=(1,)), span, every) == offsets_to_sample(None, span, every) == []
    )


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("steering", [(), ((3, 9.0, "add"),), ((3, 9.0, "clamp"), (5, 2.0, "add"))])
def test_sampled_readings_equal_readings_at_every_token(
    sae: CountingSae, when: str, steering: Sequence[tuple[int, float, Mode]]
) -> None:
    x, seen = hidden(1), dict[int, Tops]()
    for every in (1, 4):
        hook = SteeringHook(sae, CPU, sample_every=every)
        seen[every] = top(hook, x, [row(*steering, watch=watching(when=when))], 0)
    assert list(seen[4]) == [0, 4, 8]
    assert_equal_tops(seen[4], {position: seen[1][position] for position in seen[4]})
    assert_equal_tops(
        top(SteeringHook(sae, CPU, 4), x, [row(*steering, watch=watching(when=when, sample_every=1))], 0), seen[1]
    )


def test_top_k_equals_the_definition(sae: CountingSae) -> None:
    """Also where tokens are more than are encoded at once."""
    x = hidden(2, tokens=TOKENS_PER_CHUNK + 5)
    at = torch.arange(0, x.shape[:2].numel(), 2)
    reading = read_all_features(sae, x, at, torch.tensor([[1, 2], [3, 2]]), 4)
    every = sae.activations(x).flatten(0, 1)
    torch.testing.assert_close(reading.top_values.flatten(0, 1)[at], every[at].topk(4).values)
    torch.testing.assert_close(every[at].gather(-1, reading.top_indices.flatten(0, 1)[at]), every[at].topk(4).values)
    torch.testing.assert_close(reading.named[0, 0::2], sae.activations(x)[0, 0::2][:, [1, 2]])
    assert not reading.named.flatten(0, 1)[1::2].any()
    assert not reading.top_values.flatten(0, 1)[1::2].any()


@pytest.mark.parametrize("when", ["before", "after"])
def test_chunks_of_three_equal_one_pass(sae: CountingSae, when: str) -> None:
    hook, x = SteeringHook(sae, CPU, sample_every=4), hidden(1)
    rows = [clamp(3, watching(when=when))]
    at_once = top(hook, x, rows, 0)
    in_pieces: Tops = {}
    for start in range(0, LENGTH, 3):
        in_pieces |= top(hook, x[:, start : start + 3], rows, 0, start)
    assert_equal_tops(in_pieces, at_once)


BATCH = [
    clamp(3, watching(top_k=5, sample_every=2)),
    None,
    clamp(9, watching(top_k=2, sample_every=3, when="after", features=(9, 4))),
    row((8, 6.0, "add"), watch=watching(top_k=1, sample_every=1, when="after")),
    HookRow(watch=watching(top_k=4, tokens="generated", features=(1,))),
    row((8, 6.0, "add"), watch=watching(top_k=0, features=(8, 2, 30))),
    clamp(30),
]


def test_readings_of_a_batch_equal_those_of_single_rows(sae: CountingSae) -> None:
    """Rows of different steerings, moments, k and n, an unwatched and an unsteered one among them."""
    hook, x = SteeringHook(sae, CPU, sample_every=4), hidden(len(BATCH))
    together = through(hook, x, BATCH)
    for index, hook_row in enumerate(BATCH):
        if hook_row is None or hook_row.watch is None:
            continue
        alone, own_x = through(hook, x[index : index + 1], [hook_row]), x[index : index + 1]
        assert_equal_tops(top(hook, x, BATCH, index), top(hook, own_x, [hook_row], 0))
        tokens, names = offsets_to_watch(hook_row.watch, TokenSpan(0, LENGTH, PROMPT)), len(hook_row.watched_features)
        if names:
            torch.testing.assert_close(
                together.watched[index, tokens, :names], alone.watched[0, tokens, :names], rtol=0, atol=1e-5
            )
        if hook_row.features:
            torch.testing.assert_close(together.ratio[index], alone.ratio[0])


def test_only_sampled_tokens_are_encoded(jumprelu: SparseAutoencoder) -> None:
    sae = counting(jumprelu)
    hook = SteeringHook(sae, CPU, sample_every=4)
    rows = [HookRow(watch=watching(features=(1, 2))), None, clamp(3, watching(tokens="generated", when="after"))]
    through(hook, hidden(3), rows)
    assert sae.encoded == 3 + 1  # positions 0, 4, 8 of the first row; 8 of the third
    for position, encoded in ((8, 2), (9, 0), (10, 0), (11, 0), (12, 2)):
        sae.encoded = 0
        output = through(hook, hidden(3, tokens=1), rows, start=position)
        assert sae.encoded == encoded
        assert (output.top_values is None) == (encoded == 0)
        assert output.watched is not None


def test_a_step_without_readings_is_skipped(sae: CountingSae) -> None:
    hook = SteeringHook(sae, CPU, sample_every=4)
    generated = HookRow(watch=watching(tokens="generated", features=(1,)))
    assert through(hook, hidden(2, tokens=1), [HookRow(watch=watching()), generated], start=1) == HookOutput()
    assert sae.encoded == 0


def test_a_topk_sae_reads_named_features_everywhere_and_encodes_once(tmp_path: Path) -> None:
    """Named features and clamps need the full dictionary, which also yields `top_k`."""
    sae = counting(open_topk(tmp_path, rescale=False))
    hook, x = SteeringHook(sae, CPU, sample_every=4), hidden(1)
    exact = sae.activations(x)
    both = clamp(5, watching(features=(5, 6)))
    sae.encoded = 0
    output = through(hook, x, [both])
    assert sae.encoded == LENGTH
    torch.testing.assert_close(output.watched, exact[..., [5, 6]])
    for offset in (0, 4, 8):
        torch.testing.assert_close(output.top_values[0, offset], exact[0, offset].topk(3).values)
    sae.encoded = 0
    through(hook, x, [clamp(5, watching(when="after"))])
    assert sae.encoded == LENGTH + 3
    sae.encoded = 0
    through(hook, x, [row((5, 3.0, "add"), watch=watching())])
    assert sae.encoded == 3


def test_a_topk_sae_is_not_encoded_at_unsteered_tokens(tmp_path: Path) -> None:
    sae = counting(open_topk(tmp_path, rescale=False))
    hook, x = SteeringHook(sae, CPU), hidden(1)
    index = hook.acquire(HookRow((coefficients(FeatureSetting(index=5, strength=7.0, mode="clamp")),)))
    hook.prepare([index], [[False] * LENGTH], [TokenSpan(0, LENGTH, PROMPT)])
    steered = hook(x)
    assert steered is not None
    assert torch.equal(steered, x)
    assert sae.encoded == 0
    mask = [offset == 6 for offset in range(LENGTH)]
    hook.prepare([index], [mask], [TokenSpan(0, LENGTH, PROMPT)])
    steered = hook(x)
    assert steered is not None
    assert (steered != x).any(dim=-1)[0].tolist() == mask
    assert sae.encoded == 1
