"""How likely a given answer is under the base model, and how far a steering moves the model along it.

Prompt and answer go through the model whole, alone and without a cache; once as they are and, where a steering is
given, once steered at the positions at which an answer of these tokens would have been steered while it was written.
"""

import inspect

import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.engine.messages import AnswerScored, ScoreAnswer
from millm.engine.scheduler import ScheduledRow
from millm.engine.scoring import POSITIONS_PER_CHUNK
from millm.engine.sequence import Sequence
from millm.engine.taps import AttachedSaes
from millm.errors import InvalidRequest, NonFiniteOutput


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
