"""Bias and penalties match the definitions of OpenAI and transformers."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import MinNewTokensLengthLogitsProcessor, RepetitionPenaltyLogitsProcessor

from millm.engine import sampler
from millm.engine.messages import Generate, SamplingParams, Token
from millm.engine.scheduler import Sequence
from tests.engine.conftest import Engine

VOCABULARY = 12
STOP = (2, 5)
Tokens = st.lists(st.integers(0, VOCABULARY - 1), max_size=6)


def adjusted(sampling: SamplingParams, prompt: list[int], generated: list[int], logits: Tensor) -> Tensor:
    """Adjusted `logits [V]` after a prompt and output."""
    request = Generate(id="x", prompt=tuple(prompt), max_tokens=9, sampling=sampling, stop_ids=STOP)
    sequence = Sequence(request, output_ids=list(generated))
    sequence.sampler_state = sampler.new_sampler_state(sampling, torch.device("cpu"))
    sequence.sampler_state.counts.update(generated)
    before = logits.clone()
    found = sampler._adjust_logits(sequence, logits)
    assert torch.equal(logits, before), "logprobs are still to be taken of these"
    return found


@settings(max_examples=100, deadline=None)
@given(prompt=Tokens, generated=Tokens, penalty=st.floats(0.1, 3.0), seed=st.integers(0, 99))
def test_repetition_penalty_matches_transformers(
    prompt: list[int], generated: list[int], penalty: float, seed: int
) -> None:
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 4
    ids = torch.tensor([[*prompt, *generated]], dtype=torch.long)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits[None].clone())[0] if ids.numel() else logits
    torch.testing.assert_close(
        adjusted(SamplingParams(repetition_penalty=penalty), prompt, generated, logits), expected, rtol=1e-6, atol=1e-6
    )


@settings(max_examples=60, deadline=None)
@given(generated=Tokens, least=st.integers(0, 8), seed=st.integers(0, 99))
def test_min_tokens_matches_transformers(generated: list[int], least: int, seed: int) -> None:
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed))
    ids = torch.tensor([[1, *generated]])
    processor = MinNewTokensLengthLogitsProcessor(1, least, list(STOP), device="cpu")
    torch.testing.assert_close(
        adjusted(SamplingParams(min_tokens=least), [1], generated, logits), processor(ids, logits[None].clone())[0]
    )


@settings(max_examples=60, deadline=None)
@given(generated=Tokens, presence=st.floats(-2, 2), frequency=st.floats(-2, 2), seed=st.integers(0, 99))
def test_openai_penalties_and_bias_match_their_formula(
    generated: list[int], presence: float, frequency: float, seed: int
) -> None:
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed))
    sampling = SamplingParams(
        presence_penalty=presence, frequency_penalty=frequency, logit_bias=((3, 5.0), (4, -100.0))
    )
    found = adjusted(sampling, [1, 1, 3], generated, logits)
    for token in range(VOCABULARY):
        count = generated.count(token)
        bias = {3: 5.0, 4: -100.0}.get(token, 0.0)
        expected = float(logits[token]) + bias - count * frequency - (count > 0) * presence
        assert abs(float(found[token]) - expected) < 1e-4


def test_min_tokens_extends_output(engine: Engine) -> None:
    """Every token is a stop token, but not before the fourth."""
    ends = {"prompt": (1, 80, 81), "max_tokens": 20, "stop_ids": tuple(range(3, 350))}
    short = Generate(id="short", sampling=SamplingParams(temperature=0), **ends)  # type: ignore[arg-type]
    long = Generate(id="long", sampling=SamplingParams(temperature=0, min_tokens=4), **ends)  # type: ignore[arg-type]
    (few,), (more,) = engine.generate(short), engine.generate(long)
    assert sum(isinstance(event, Token) for event in more) >= 4 > sum(isinstance(event, Token) for event in few)


def test_tiny_temperature_is_greedy(engine: Engine) -> None:
    """Division by it would overflow the logits."""
    body = {"prompt": (1, 80, 81), "max_tokens": 8}
    frozen = Generate(id="frozen", sampling=SamplingParams(temperature=5e-324, logprobs=0), **body)  # type: ignore[arg-type]
    greedy = Generate(id="greedy", sampling=SamplingParams(temperature=0), **body)  # type: ignore[arg-type]
    assert engine.tokens(frozen) == engine.tokens(greedy)
