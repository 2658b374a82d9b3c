"""How likely a given answer is under the base model, and how far a steering moves the model along it.

Prompt and answer go through the model whole, alone and without a cache; once as they are and, where a steering is
given, once steered at the positions at which an answer of these tokens would have been steered while it was written.

One text → one vector of unit length: its whole forward pass alone, its last hidden states pooled.

No batch, no chunks, no cache: the vector depends on the text and nothing else (docs/decisions/0010). SAEs watch it and
never steer it.

How likely a prompt was: each of its tokens, given those before it.

Which features of a whole dictionary fire on one text: every token that counts encoded, without any steering.
"""

import inspect

import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine.attached_saes import AttachedSaes
from millm.engine.messages import (
    AnswerScored,
    Embed,
    FeatureActivity,
    FeaturesScanned,
    Pooling,
    PromptScores,
    ScanFeatures,
    ScoreAnswer,
    TextEmbedded,
    TokenScore,
)
from millm.engine.scheduler import ScheduledRow, Sequence
from millm.errors import InvalidRequest, NonFiniteOutput
from millm.sae import hooks
from millm.sae.autoencoder import TOKENS_PER_CHUNK, SparseAutoencoder
from millm.sae.hooks import CausalModel


def embed(model: PreTrainedModel, attached_saes: AttachedSaes, text: Sequence, command: Embed) -> TextEmbedded:
    """Raises NonFiniteOutput and what `Taps.start` raises.

    The caller gives back what `text` holds of the taps, also then.
    """
    attached_saes.start(text)
    row = ScheduledRow(text, 0, command.tokens)
    attached_saes.prepare((row,))
    vector = normalised(pooled(last_hidden_states(model, row.tokens), command.pooling))
    (readings,) = attached_saes.collect((row,))
    return TextEmbedded(id=command.id, vector=vector.cpu().numpy().astype("<f4").tobytes(), readings=readings)


@torch.inference_mode()
def last_hidden_states(model: CausalModel, tokens: tuple[int, ...]) -> Tensor:
    """What the last layer and the final norm make of one sequence, in float32  # [T, d]"""
    body = model.get_decoder()  # without the head: no [T, vocabulary] logits for nothing; an encoder is its own
    no_cache = {"use_cache": False} if "use_cache" in inspect.signature(body.forward).parameters else {}
    output = body(input_ids=torch.tensor([tokens], device=model.device), **no_cache)
    hidden: Tensor = output.last_hidden_state[0].float()
    return hidden


def pooled(hidden: Tensor, pooling: Pooling) -> Tensor:
    """`hidden [T, d]` → `[d]`, as sentence-transformers' Pooling of that name (github.com/huggingface)."""
    match pooling:
        case "mean":
            return hidden.mean(dim=0)
        case "cls":
            return hidden[0]
        case "lasttoken":
            return hidden[-1]
        case "max":
            return hidden.amax(dim=0)


def normalised(vector: Tensor) -> Tensor:
    """At length 1. Raises NonFiniteOutput."""
    if not bool(torch.isfinite(vector).all()):
        raise NonFiniteOutput("the model's hidden states are not finite numbers; load it with dtype float32")
    return torch.nn.functional.normalize(vector, dim=-1)


POSITIONS_PER_CHUNK = 64
"""Positions whose whole vocabulary is turned into probabilities at once: memory for these, not for a long prompt."""


def score_prompt(row: ScheduledRow, logits: Tensor) -> PromptScores | None:
    """`logits [T, V]` of the row's tokens → scores of their successors in the prompt, those not yet reported.

    Natural logarithms of the model's own probabilities. None where nothing is new. Raises NonFiniteOutput.
    """
    sequence = row.sequence
    prompt = sequence.request.prompt
    first = max(row.start, sequence.num_scored_tokens)
    end = min(row.start + len(row.tokens), len(prompt) - 1)
    if first >= end:
        return None
    found: list[TokenScore] = []
    for place in range(first, end, POSITIONS_PER_CHUNK):
        last = min(place + POSITIONS_PER_CHUNK, end)
        found += _score_positions(
            logits[place - row.start : last - row.start],
            prompt[place + 1 : last + 1],
            sequence.request.prompt_logprobs or 0,
        )
    sequence.num_scored_tokens = end
    return PromptScores(id=sequence.id, scores=tuple(found))


def _score_positions(logits: Tensor, successors: tuple[int, ...], alternatives: int) -> list[TokenScore]:
    """`logits [T, V]`, one successor each."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    chosen = logprobs.gather(1, torch.tensor(successors, device=logits.device)[:, None])[:, 0]  # [T]
    if bool(torch.isnan(chosen).any()):
        raise NonFiniteOutput("the model's logits are not finite numbers; a steering this strong can do that")
    if not alternatives:
        return [TokenScore(logprob) for logprob in chosen.tolist()]
    top = logprobs.topk(min(alternatives, logprobs.shape[-1]))  # [T, k]
    pairs = zip(chosen.tolist(), top.indices.tolist(), top.values.tolist(), strict=True)
    return [TokenScore(logprob, tuple(zip(ids, values, strict=True))) for logprob, ids, values in pairs]


def score_answer(
    model: PreTrainedModel, attached_saes: AttachedSaes, text: Sequence, command: ScoreAnswer
) -> AnswerScored:
    """Raises InvalidRequest, NonFiniteOutput and what `Taps.start` raises.

    The caller gives back what `text` holds of the taps, also then.
    """
    if not command.prompt or not command.answer:
        raise InvalidRequest("prompt and answer need at least one token each: every token is judged by those before it")
    attached_saes.start(text)
    row = ScheduledRow(
        text, 0, (*command.prompt, *command.answer[:-1])
    )  # the last token chooses none, so generation never feeds it
    attached_saes.prepare_unsteered()
    base = _answer_logits(model, row.tokens, len(command.answer))
    if command.steering is None:
        return AnswerScored(id=command.id, tokens=len(command.answer), nll=_mean(_nlls(base, command.answer)))
    attached_saes.prepare((row,))
    steered = _answer_logits(model, row.tokens, len(command.answer))
    return AnswerScored(
        id=command.id,
        tokens=len(command.answer),
        nll=_mean(_nlls(base, command.answer)),
        steered_nll=_mean(_nlls(steered, command.answer)),
        kl=_mean(_divergences(steered, base)),
    )


@torch.inference_mode()
def _answer_logits(model: PreTrainedModel, tokens: tuple[int, ...], count: int) -> Tensor:
    """Logits of the last `count` positions, in the model's own type  # [N, V]"""
    accepted = inspect.signature(model.forward).parameters
    options = {"use_cache": False, "logits_to_keep": count}
    output = model(
        input_ids=torch.tensor([tokens], device=model.device),
        return_dict=True,
        **{name: value for name, value in options.items() if name in accepted},
    )
    logits: Tensor = output.logits[0, -count:]
    return logits


def _nlls(logits: Tensor, answer: tuple[int, ...]) -> Tensor:
    """−ln p of each token  # [N]"""
    chosen = torch.tensor(answer, device=logits.device)[:, None]  # [N, 1]
    parts = zip(torch.split(logits, POSITIONS_PER_CHUNK), torch.split(chosen, POSITIONS_PER_CHUNK), strict=True)
    return torch.cat([-_logprobs(some).gather(1, ids)[:, 0] for some, ids in parts])


def _divergences(steered: Tensor, base: Tensor) -> Tensor:
    """KL(steered ‖ base) at each position, in nats  # [N]"""
    parts = zip(torch.split(steered, POSITIONS_PER_CHUNK), torch.split(base, POSITIONS_PER_CHUNK), strict=True)
    return torch.cat([_divergence(_logprobs(one), _logprobs(other)) for one, other in parts])


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """Of log-probabilities [N, V]; a token that is impossible under both counts nothing."""
    weight = p.exp()
    return torch.where(weight > 0, weight * (p - q), 0.0).sum(dim=-1)


def _logprobs(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits.float(), dim=-1)


def _mean(values: Tensor) -> float:
    """Raises NonFiniteOutput."""
    mean = float(values.double().mean())
    if not torch.isfinite(values).all():
        raise NonFiniteOutput("the model's logits are not finite numbers; a steering this strong can do that")
    return mean


def scan_features(model: PreTrainedModel, attached_saes: AttachedSaes, command: ScanFeatures) -> FeaturesScanned:
    """Raises InvalidRequest, SaeNotFound or SaeDetached."""
    if not command.tokens:
        raise InvalidRequest("a text to survey needs at least one token")
    attached = attached_saes.get(command.sae, command.attachment)
    attached_saes.prepare_unsteered()
    hidden = hooks.capture(model, [attached.hook_point], command.tokens)[attached.hook_point.name]  # [T, d]
    counted = hidden[_counting(command.tokens, attached_saes.special_ids)]
    return FeaturesScanned(id=command.id, tokens=len(counted), features=_feature_activities(attached.hook.sae, counted))


def _counting(tokens: tuple[int, ...], special_ids: frozenset[int]) -> list[int]:
    """Positions behind the attention sink that no template put there; where there are none, as good as it gets."""
    behind = list(range(1, len(tokens)))
    plain = [position for position in behind if tokens[position] not in special_ids]
    return plain or behind or [0]


@torch.inference_mode()
def _feature_activities(sae: SparseAutoencoder, x: Tensor) -> tuple[FeatureActivity, ...]:
    """x [N, d] → what each feature did on it, those that did nothing left out."""
    size = sae.config.d_sae
    count = torch.zeros(size, dtype=torch.long, device=x.device)
    total = torch.zeros(size, dtype=torch.float64, device=x.device)
    largest = torch.zeros(size, device=x.device)
    for some in torch.split(x, TOKENS_PER_CHUNK):
        activations = sae.activations(some)  # [n, F]
        count += (activations > 0).sum(dim=0)
        total += activations.sum(dim=0, dtype=torch.float64)
        largest = torch.maximum(largest, activations.amax(dim=0))
    fired = count.nonzero()[:, 0]
    columns = (fired.tolist(), count[fired].tolist(), total[fired].tolist(), largest[fired].tolist())
    return tuple(FeatureActivity(*one) for one in zip(*columns, strict=True))
