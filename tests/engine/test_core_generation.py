"""The engine's output matches plain transformers with plain hooks."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaForCausalLM

from millm.engine import sampler
from millm.engine.messages import Finished, Generate, SamplingParams, Token
from millm.engine.scheduler import Sequence
from millm.errors import EngineFailed, InvalidSteering
from millm.sae.steering import Coefficients, FeatureSetting, Positions, SaeSteering, Skip, Steering, Watch, coefficients
from tests.engine.conftest import Engine
from tests.fixtures.close import rounding, terms_of_path
from tests.fixtures.tiny import FEATURES, HOOK_LAYER

PROMPT = (1, 80, 81, 82, 2, 90, 91, 33, 120, 45)
GREEDY = SamplingParams(temperature=0)
NEW = 24


def request(
    request_id: str, steering: Steering | None = None, *, prompt: tuple[int, ...] = PROMPT, **more: object
) -> Generate:
    fields = {"sampling": GREEDY, "max_tokens": NEW, **more}
    return Generate(id=request_id, prompt=prompt, steering=steering, **fields)  # type: ignore[arg-type]


def steer(*settings_: FeatureSetting, positions: Positions = "all", skip: Skip = "bos") -> Steering:
    rows = tuple(coefficients(setting) for setting in settings_)
    return Steering(by_sae=(SaeSteering("tiny", rows),), positions=positions, skip=skip)


def add(index: int, strength: float) -> FeatureSetting:
    return FeatureSetting(index=index, strength=strength)


PUSH = steer(add(3, 8.0), add(9, -4.0))


@pytest.fixture(scope="session")
def decoder(tiny_sae) -> Tensor:
    """W_dec [F, d] from the file, with unit rows."""
    return load_file(tiny_sae / "sae_weights.safetensors")["W_dec"]


@contextmanager
def hooked(model: LlamaForCausalLM, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Apply `change` to the residual after the hooked layer, at all positions."""
    layer = model.model.layers[HOOK_LAYER]
    handle = layer.register_forward_hook(lambda _m, _a, out: change(out))
    try:
        yield
    finally:
        handle.remove()


def greedy_without_cache(model: LlamaForCausalLM, change: Callable[[Tensor], Tensor]) -> list[int]:
    """Greedy decoding without a cache."""
    return greedy_by_ids(model, lambda _ids: change)


def greedy_by_ids(model: LlamaForCausalLM, change: Callable[[Tensor], Callable[[Tensor], Tensor]]) -> list[int]:
    """The same, with a change that depends on the ids so far."""
    ids = list(PROMPT)
    for _ in range(NEW):
        so_far = torch.tensor(ids)
        with torch.inference_mode(), hooked(model, change(so_far)):
            ids.append(int(model(so_far[None], use_cache=False).logits[0, -1].argmax()))
    return ids[len(PROMPT) :]


def test_unsteered_output_matches_generate(engine: Engine, reference: LlamaForCausalLM) -> None:
    """Tokens, and logprobs of `generate`'s logits."""
    terms = terms_of_path(reference.config, len(PROMPT) + NEW) + reference.config.hidden_size
    events, *_ = engine.generate(request("base", sampling=SamplingParams(temperature=0, logprobs=0)))
    ours = [event for event in events if isinstance(event, Token)]
    theirs = reference.generate(
        torch.tensor([PROMPT]), max_new_tokens=NEW, do_sample=False, eos_token_id=None, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    assert [event.token for event in ours] == theirs.sequences[0, len(PROMPT) :].tolist()
    for event, logits in zip(ours, theirs.logits, strict=True):
        expected = float(torch.log_softmax(logits[0].float(), -1)[event.token])
        assert event.logprob == pytest.approx(expected, abs=rounding(float(logits.abs().max()), terms))


def test_steering_with_a_cache_matches_steering_without(
    engine: Engine, reference: LlamaForCausalLM, decoder: Tensor
) -> None:
    delta = 8.0 * decoder[3] - 4.0 * decoder[9]

    def change(x: Tensor) -> Tensor:
        return x + delta * (torch.arange(x.shape[1]) > 0)[:, None]

    assert engine.tokens(request("add", PUSH)) == greedy_without_cache(reference, change)
    assert engine.tokens(request("add", PUSH)) != engine.tokens(request("base"))


@pytest.mark.parametrize("mode", ["clamp", "min_clamp", "scale", "ablate"])
def test_modes_that_depend_on_the_activation(
    engine: Engine, reference: LlamaForCausalLM, decoder: Tensor, mode: str
) -> None:
    """Compares with each mode's definition on the full SAE with its error term."""
    strengths = {11: 6.0, 40: 2.0}

    def change(x: Tensor) -> Tensor:
        pre = x @ decoder.T
        acts = pre * (pre > 0.3)
        target = acts.clone()
        for index, strength in strengths.items():
            target[..., index] = {
                "clamp": torch.full_like(acts[..., index], strength),
                "min_clamp": acts[..., index].clamp_min(strength),
                "scale": acts[..., index] * strength,
                "ablate": torch.zeros_like(acts[..., index]),
            }[mode]
        delta = (target - acts) @ decoder
        delta[:, 0] = 0
        return x + delta

    steering = steer(*(FeatureSetting(index=i, strength=s, mode=mode) for i, s in strengths.items()))  # type: ignore[arg-type]
    assert engine.tokens(request(mode, steering)) == greedy_without_cache(reference, change)


@pytest.mark.parametrize("positions", ["prompt", "generated"])
def test_positions(engine: Engine, reference: LlamaForCausalLM, decoder: Tensor, positions: Positions) -> None:
    """`generated` starts at the last prompt token, whose residual gives the first new token."""
    first, last = (1, len(PROMPT)) if positions == "prompt" else (len(PROMPT) - 1, 10_000)

    def change(x: Tensor) -> Tensor:
        at = torch.arange(x.shape[1])
        return x + 8.0 * decoder[3] * ((at >= first) & (at < last))[:, None]

    steering = steer(add(3, 8.0), positions=positions)
    assert engine.tokens(request(positions, steering)) == greedy_without_cache(reference, change)


def test_skips(engine: Engine, reference: LlamaForCausalLM, decoder: Tensor) -> None:
    """`special` skips the ids 0, 1, 2; `none` skips no token."""

    def pushed(keep: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda x: x + 8.0 * decoder[3] * keep[:, None]

    special = greedy_by_ids(reference, lambda ids: pushed((ids > 2) & (torch.arange(len(ids)) > 0)))
    none = greedy_by_ids(reference, lambda ids: pushed(ids >= 0))
    assert engine.tokens(request("special", steer(add(3, 8.0), skip="special"))) == special
    assert engine.tokens(request("none", steer(add(3, 8.0), skip="none"))) == none
    assert special != none


def test_concurrent_requests_match_single_runs(engine: Engine) -> None:
    """Different steerings at once, in any order, and unchanged base output afterwards."""
    requests = [
        request("base"),
        request("push", PUSH),
        request("clamp", steer(FeatureSetting(index=11, strength=6.0, mode="clamp"))),
        request("sample", PUSH, sampling=SamplingParams(temperature=0.9, seed=7)),
    ]
    alone = [engine.tokens(one) for one in requests]
    together = engine.generate(*requests)
    assert [[e.token for e in events if isinstance(e, Token)] for events in together] == alone
    assert engine.tokens(request("base")) == alone[0]


def test_receipt(engine: Engine, reference: LlamaForCausalLM, decoder: Tensor) -> None:
    events, *_ = engine.generate(request("receipt", PUSH))
    receipt = events[-1].receipt  # type: ignore[union-attr]
    fed = len(PROMPT) + NEW - 1  # the last token is never fed
    assert receipt.fingerprint == PUSH.fingerprint
    assert receipt.tokens_steered == fed - 1
    ids = [*PROMPT, *(event.token for event in events if isinstance(event, Token))][:fed]
    seen: list[Tensor] = []
    with torch.inference_mode(), hooked(reference, lambda x: (seen.append(x), x + 0)[1]):
        delta = 8.0 * decoder[3] - 4.0 * decoder[9]
        reference(torch.tensor([ids]))
    ratio = delta.norm() / seen[0][0, 1:].norm(dim=-1)
    assert receipt.delta_norm_ratio == pytest.approx(float(ratio.mean()), rel=1e-4)


def test_no_receipt_without_steering(engine: Engine) -> None:
    end = engine.generate(request("base"))[0][-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.receipt) == ("length", None)


def test_watching_reads_the_encoder_and_preserves_output(
    engine: Engine, reference: LlamaForCausalLM, decoder: Tensor
) -> None:
    watch = Watch(sae="tiny", features=(3, 11, 40), top_k=4, tokens="all", sample_every=1)
    events, *_ = engine.generate(request("watch", watch=(watch,)))
    tokens = [event.token for event in events if isinstance(event, Token)]
    assert tokens == engine.tokens(request("base"))
    readings = [reading for event in events for reading in event.readings]
    assert [reading.position for reading in readings] == list(range(len(PROMPT) + NEW - 1))
    seen: list[Tensor] = []
    with torch.inference_mode(), hooked(reference, lambda x: (seen.append(x), x)[1]):
        reference(torch.tensor([[*PROMPT, *tokens[:-1]]]))
    pre = seen[0][0] @ decoder.T
    expected = pre * (pre > 0.3)  # [T, F]
    for reading, row in zip(readings, expected, strict=True):
        assert reading.values == pytest.approx(row[[3, 11, 40]].tolist(), abs=1e-4)
        top = row.topk(4)
        assert [value for _, value in reading.top] == pytest.approx(top.values.tolist(), abs=1e-4)
        assert [index for index, _ in reading.top] == top.indices.tolist()


def test_watching_before_and_after_steering(engine: Engine, reference: LlamaForCausalLM, decoder: Tensor) -> None:
    """After an additive push the reading is the pre-activation plus the push; before it, the unsteered one."""
    strength = 40.0
    steering = steer(add(3, strength))
    seen: list[Tensor] = []
    with torch.inference_mode(), hooked(reference, lambda x: (seen.append(x), x)[1]):
        reference(torch.tensor([PROMPT]))
    pre = float(seen[0][0, 1] @ decoder[3])

    def first_reading(when: str, applied: Steering | None) -> float:
        watch = Watch(sae="tiny", features=(3,), tokens="prompt", when=when)  # type: ignore[arg-type]
        events, *_ = engine.generate(request(when, applied, watch=(watch,)))
        return events[0].readings[1].values[0]

    unsteered = first_reading("before", None)
    assert first_reading("before", steering) == pytest.approx(unsteered, abs=1e-4)
    assert first_reading("after", steering) == pytest.approx(pre + strength, rel=1e-4)


def test_stop_ids_finish_the_sequence_without_a_token(engine: Engine) -> None:
    tokens = engine.tokens(request("base"))
    stop = tokens[5]
    events, *_ = engine.generate(request("stop", stop_ids=(stop,)))
    assert [event.token for event in events if isinstance(event, Token)] == tokens[: tokens.index(stop)]
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.receipt, end.readings) == ("stop", None, ())


def test_seed_repeats_and_temperature_varies(engine: Engine) -> None:
    def sample(seed: int) -> list[int]:
        return engine.tokens(request("sample", sampling=SamplingParams(temperature=1.5, seed=seed)))

    assert sample(1) == sample(1)
    assert len({tuple(sample(seed)) for seed in range(4)}) == 4


@given(
    logits=st.lists(st.integers(-80, 80).map(lambda tenths: tenths / 10), min_size=4, max_size=4),
    top_p=st.floats(0.05, 1.0),
    top_k=st.integers(0, 4),
    min_p=st.floats(0.0, 0.9),
)
@settings(max_examples=100, deadline=None)
def test_sampling_stays_within_top_k_top_p_and_min_p(
    logits: list[float], top_p: float, top_k: int, min_p: float
) -> None:
    """Compares with the definitions of top-k, then top-p, then min-p, on four tokens."""
    sampling = SamplingParams(top_p=top_p, top_k=top_k, min_p=min_p, seed=0)
    sequence = Sequence(Generate(id="x", prompt=(1,), max_tokens=1, sampling=sampling))
    values = torch.tensor(logits)
    sample = set()
    for seed in range(40):
        sequence.sampler_state = sampler.new_sampler_state(SamplingParams(seed=seed), torch.device("cpu"))
        sample.add(choice(sequence, values))
    order = sorted(range(4), key=lambda i: -values[i])
    allowed = [i for i in order if not top_k or values[i] >= values[order[top_k - 1]]]
    weights = {i: math.exp(values[i]) for i in allowed}
    nucleus, mass = [], 0.0
    for i in allowed:
        if nucleus and mass / sum(weights.values()) >= top_p + 1e-6:
            break
        nucleus.append(i)
        mass += weights[i]
    top, last = max(weights[i] for i in nucleus), min(weights[i] for i in nucleus)
    tied = [i for i in allowed if weights[i] >= last * (1 - 1e-5)]
    assert sample <= {i for i in tied if weights[i] >= (min_p - 1e-6) * top}


def test_engine_rejects_invalid_steering(engine: Engine) -> None:
    """The API validates first, but the engine does not rely on it."""
    for bad, what in (
        (steer(add(FEATURES, 1.0)), f"feature {FEATURES} is not in 0..{FEATURES - 1}"),
        (Steering(by_sae=(SaeSteering("other", ()),)), "no SAE named 'other'"),
    ):
        with pytest.raises(InvalidSteering, match=what):
            engine.generate(request("bad", bad))
    assert engine.tokens(request("base"))


def test_non_finite_logits_fail_only_the_request(engine: Engine) -> None:
    before = engine.tokens(request("base"))
    infinite = Steering(by_sae=(SaeSteering("tiny", (Coefficients(3, alpha=1e39, beta=0.0),)),))
    with pytest.raises(EngineFailed, match="not finite"):
        engine.generate(request("nan", infinite))
    assert engine.tokens(request("base")) == before


def test_top_p_over_a_flat_vocabulary() -> None:
    """More than `_TOP_P_CANDIDATES` tokens: half the weight of 5,000 nearly equal tokens is nearly half of them."""
    sequence = Sequence(Generate(id="x", prompt=(1,), max_tokens=1, sampling=SamplingParams(top_p=0.5)))
    sequence.sampler_state = sampler.new_sampler_state(SamplingParams(seed=0), torch.device("cpu"))
    logits = torch.linspace(0.1, 0, 5000)
    sample = {choice(sequence, logits) for _ in range(3000)}
    half = int((torch.softmax(logits, -1).cumsum(-1) < 0.5).sum())
    assert 1500 < max(sample) <= half + 1


def choice(sequence: Sequence, logits: Tensor) -> int:
    (best,) = sampler.argmax_tokens(logits[None])
    return sampler.sample_token(sequence, logits, best).token
