"""Results of forward passes over given text: prompt logprobs, answer log-likelihoods, embeddings, feature scans.

All but prompt logprobs run one text alone, in one pass without a cache, so that the result depends on nothing but the
text (docs/decisions/0010).
"""

import inspect

import torch
from msgspec.structs import replace
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine.attached_saes import AttachedSaes
from millm.engine.failures import non_finite_logits
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

POSITIONS_PER_CHUNK = 64  # Positions whose logits are turned into probabilities at once, to bound the memory


def embed(model: PreTrainedModel, attached_saes: AttachedSaes, text: Sequence, command: Embed) -> TextEmbedded:
    """Unit vector of an unsteered text. Raises NonFiniteOutput, and as `AttachedSaes.start` does.

    The caller calls `AttachedSaes.finish`, also after an exception.
    """
    attached_saes.start(text)
    row = ScheduledRow(text, 0, command.tokens)
    attached_saes.prepare((row,))
    vector = normalised(pooled(last_hidden_states(model, row.tokens), command.pooling))
    (readings,) = attached_saes.collect((row,))
    return TextEmbedded(id=command.id, vector=vector.cpu().numpy().astype("<f4").tobytes(), readings=readings)


@torch.inference_mode()
def last_hidden_states(model: CausalModel, tokens: tuple[int, ...]) -> Tensor:
    """Hidden states behind the final norm, in float32  # [T, d]"""
    body = model.get_decoder()  # without the head, whose [T, V] logits are not needed
    no_cache = {"use_cache": False} if "use_cache" in inspect.signature(body.forward).parameters else {}
    output = body(input_ids=torch.tensor([tokens], device=model.device), **no_cache)
    hidden: Tensor = output.last_hidden_state[0].float()
    return hidden


def pooled(hidden: Tensor, pooling: Pooling) -> Tensor:
    """`hidden [T, d]` → `[d]`, as sentence-transformers' Pooling."""
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
    """Raises NonFiniteOutput."""
    if not bool(torch.isfinite(vector).all()):
        raise NonFiniteOutput("the model's hidden states are not finite numbers; load it with dtype float32")
    return torch.nn.functional.normalize(vector, dim=-1)


def score_prompt(row: ScheduledRow, logits: Tensor) -> PromptScores | None:
    """`logits [T, V]` of the row → logprobs of the next prompt tokens that were not yet reported, or None.

    Raises NonFiniteOutput.
    """
    sequence = row.sequence
    prompt = sequence.request.prompt
    first = max(row.start, sequence.num_scored_tokens)
    end = min(row.start + len(row.tokens), len(prompt) - 1)
    if first >= end:
        return None
    alternatives = sequence.request.prompt_logprobs or 0
    scores: list[TokenScore] = []
    for start in range(first, end, POSITIONS_PER_CHUNK):
        stop = min(start + POSITIONS_PER_CHUNK, end)
        chunk = logits[start - row.start : stop - row.start]
        scores += _score_positions(chunk, prompt[start + 1 : stop + 1], alternatives)
    sequence.num_scored_tokens = end
    return PromptScores(id=sequence.id, scores=tuple(scores))


def _score_positions(logits: Tensor, successors: tuple[int, ...], alternatives: int) -> list[TokenScore]:
    """`logits [T, V]` and the token that follows each."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    chosen = logprobs.gather(1, torch.tensor(successors, device=logits.device)[:, None])[:, 0]  # [T]
    if bool(torch.isnan(chosen).any()):
        raise non_finite_logits()
    if not alternatives:
        return [TokenScore(logprob) for logprob in chosen.tolist()]
    top = logprobs.topk(min(alternatives, logprobs.shape[-1]))  # [T, k]
    pairs = zip(chosen.tolist(), top.indices.tolist(), top.values.tolist(), strict=True)
    return [TokenScore(logprob, tuple(zip(ids, values, strict=True))) for logprob, ids, values in pairs]


def score_answer(
    model: PreTrainedModel, attached_saes: AttachedSaes, text: Sequence, command: ScoreAnswer
) -> AnswerScored:
    """The answer under the base model and, given a steering, steered at the positions at which generation would be.

    Raises InvalidRequest, NonFiniteOutput, and as `AttachedSaes.start` does. The caller calls `AttachedSaes.finish`.
    """
    if not command.prompt or not command.answer:
        raise InvalidRequest("prompt and answer need at least one token each")
    attached_saes.start(text)
    row = ScheduledRow(text, 0, (*command.prompt, *command.answer[:-1]))  # generation never feeds the last token
    attached_saes.prepare_unsteered()
    count = len(command.answer)
    base = _answer_logits(model, row.tokens, count)
    result = AnswerScored(id=command.id, tokens=count, nll=_mean(_nlls(base, command.answer)))
    if command.steering is None:
        return result
    attached_saes.prepare((row,))
    steered = _answer_logits(model, row.tokens, count)
    return replace(result, steered_nll=_mean(_nlls(steered, command.answer)), kl=_mean(_divergences(steered, base)))


@torch.inference_mode()
def _answer_logits(model: PreTrainedModel, tokens: tuple[int, ...], count: int) -> Tensor:
    """Logits of the last `count` positions, in the model's dtype  # [N, V]"""
    accepted = inspect.signature(model.forward).parameters
    options = {name: value for name, value in (("use_cache", False), ("logits_to_keep", count)) if name in accepted}
    output = model(input_ids=torch.tensor([tokens], device=model.device), return_dict=True, **options)
    logits: Tensor = output.logits[0, -count:]
    return logits


def _nlls(logits: Tensor, answer: tuple[int, ...]) -> Tensor:
    """−ln p of each token  # [N]"""
    chosen = torch.tensor(answer, device=logits.device)[:, None]  # [N, 1]
    parts = zip(torch.split(logits, POSITIONS_PER_CHUNK), torch.split(chosen, POSITIONS_PER_CHUNK), strict=True)
    return torch.cat([-_logprobs(chunk).gather(1, ids)[:, 0] for chunk, ids in parts])


def _divergences(steered: Tensor, base: Tensor) -> Tensor:
    """KL(steered ‖ base) at each position, in nats  # [N]"""
    parts = zip(torch.split(steered, POSITIONS_PER_CHUNK), torch.split(base, POSITIONS_PER_CHUNK), strict=True)
    return torch.cat([_divergence(_logprobs(p), _logprobs(q)) for p, q in parts])


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """Of log-probabilities [N, V]; tokens with p = 0 count 0."""
    weight = p.exp()
    return torch.where(weight > 0, weight * (p - q), 0.0).sum(dim=-1)


def _logprobs(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits.float(), dim=-1)


def _mean(values: Tensor) -> float:
    """Raises NonFiniteOutput."""
    mean = float(values.double().mean())
    if not torch.isfinite(values).all():
        raise non_finite_logits()
    return mean


def scan_features(model: PreTrainedModel, attached_saes: AttachedSaes, command: ScanFeatures) -> FeaturesScanned:
    """Raises InvalidRequest, SaeNotFound or SaeDetached."""
    if not command.tokens:
        raise InvalidRequest("a text to scan needs at least one token")
    attached = attached_saes.get(command.sae, command.attachment)
    attached_saes.prepare_unsteered()
    hidden = hooks.capture(model, [attached.hook_point], command.tokens)[attached.hook_point.name]  # [T, d]
    x = hidden[_positions_to_scan(command.tokens, attached_saes.special_ids)]
    return FeaturesScanned(id=command.id, tokens=len(x), features=_feature_activities(attached.hook.sae, x))


def _positions_to_scan(tokens: tuple[int, ...], special_ids: frozenset[int]) -> list[int]:
    """All without position 0 (attention sink) and special tokens, as far as the text has others."""
    after_first = list(range(1, len(tokens)))
    plain = [position for position in after_first if tokens[position] not in special_ids]
    return plain or after_first or [0]


@torch.inference_mode()
def _feature_activities(sae: SparseAutoencoder, x: Tensor) -> tuple[FeatureActivity, ...]:
    """x [N, d] → the features with an activation above 0."""
    size = sae.config.d_sae
    count = torch.zeros(size, dtype=torch.long, device=x.device)
    total = torch.zeros(size, dtype=torch.float64, device=x.device)
    largest = torch.zeros(size, device=x.device)
    for chunk in torch.split(x, TOKENS_PER_CHUNK):
        activations = sae.activations(chunk)  # [n, F]
        count += (activations > 0).sum(dim=0)
        total += activations.sum(dim=0, dtype=torch.float64)
        largest = torch.maximum(largest, activations.amax(dim=0))
    active = count.nonzero()[:, 0]
    columns = (active.tolist(), count[active].tolist(), total[active].tolist(), largest[active].tolist())
    return tuple(FeatureActivity(*values) for values in zip(*columns, strict=True))
