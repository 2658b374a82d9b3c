"""The demo model with its SAE tapped: many answers to one question at once, each row with its own steering.

It runs the engine's own tap and sampler. Beside every steered row runs the base model on the same tokens, so that an
answer comes with its perplexity under the base model and with KL(steered ‖ base) at no second reading.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from millm.demo import bundle
from millm.demo.weights import prepare
from millm.engine import model_loader as models
from millm.engine import sampler
from millm.engine.messages import Generate, LoadModel, SamplingParams
from millm.engine.scheduler import Sequence as EngineSequence
from millm.sae import hooks
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.formats import canonicalise
from millm.sae.hook_step import TokenSpan
from millm.sae.steering_hook import SteeringHook
from millm.settings import Settings
from millm.text.chat_template import ChatTemplate, PromptMessage
from millm.text.tokenizer import Tokenizer

NEW_TOKENS = 40
TEMPERATURE = 0.7
TOP_P = 0.95


@dataclass(frozen=True)
class Written:
    """One answer. Means over its tokens, in nats; None for an answer without tokens."""

    text: str
    nll: float | None
    """−ln p under the base model, given the same prompt."""
    kl: float | None
    """KL(steered ‖ base) of the distributions that its tokens were drawn from."""


class Writer:
    """The model, its tokenizer and the tap on it."""

    def __init__(self, home: Path, scratch: Path) -> None:
        folder = prepare(home, source=Settings.load().demo_wheel, on_progress=lambda *_: None)
        self.tokenizer = Tokenizer.from_folder(folder)
        self.template = ChatTemplate.from_folder(folder, self.tokenizer)
        self.model: PreTrainedModel = models.load_model(LoadModel(id="measure", path=str(folder)), lambda *_: None)
        self.stop_ids = set(models.stop_ids(self.model))
        sae = SparseAutoencoder.open(canonicalise(bundle.SAE_FOLDER, scratch))
        assert sae.config.hook_name
        self.tap = SteeringHook(sae, self.model.device)
        hooks.resolve_hook_point(self.model, sae.config.hook_name).register(self.tap)

    def prompt(self, question: str, system: str | None = None) -> tuple[int, ...]:
        messages = [*([PromptMessage("system", system)] if system is not None else []), PromptMessage("user", question)]
        return tuple(self.template.render_prompt(messages).ids)

    @torch.inference_mode()
    def write(self, prompt: tuple[int, ...], rows: Sequence[int], seed: int) -> list[Written]:
        """One answer per row of the tap's table; row 0 is the base model."""
        answers = [_Answer(prompt, seed) for _ in rows]
        both = [*rows, *([0] * len(rows))]
        logits, cache = self._read(prompt, [*rows, 0])
        cache.batch_select_indices(torch.tensor([*range(len(rows)), *([len(rows)] * len(rows))]))
        logits = torch.cat([logits[:-1], logits[-1:].expand(len(rows), -1)])  # [2B, V]
        for position in range(len(prompt), len(prompt) + NEW_TOKENS):
            ids = self._choose(answers, logits[: len(rows)], logits[len(rows) :])
            self.tap.prepare(both, [[True]] * len(both), [TokenSpan(position, 1, len(prompt))] * len(both))
            logits = self._step(torch.tensor([*ids, *ids])[:, None], cache)
        return [answer.written(self.tokenizer) for answer in answers]

    @torch.inference_mode()
    def ask(self, prompts: Sequence[tuple[int, ...]], seed: int) -> list[Written]:
        """The base model's answer to each of several prompts."""
        self.tap.prepare((), (), ())
        answers = [_Answer(prompt, seed) for prompt in prompts]
        longest = max(len(prompt) for prompt in prompts)
        absent = [longest - len(prompt) for prompt in prompts]
        ids = torch.tensor([[0] * padding + [*prompt] for padding, prompt in zip(absent, prompts, strict=True)])
        cache = DynamicCache(config=self.model.config)
        for end in range(longest, longest + NEW_TOKENS):
            mask = torch.tensor([[column >= padding for column in range(end)] for padding in absent])
            places = (mask.long().cumsum(-1) - 1).clamp_min(0)[:, -ids.shape[1] :]
            logits = self._step(ids, cache, attention_mask=mask, position_ids=places)
            ids = torch.tensor(self._choose(answers, logits, logits))[:, None]
        return [answer.written(self.tokenizer) for answer in answers]

    def _read(self, prompt: tuple[int, ...], rows: Sequence[int]) -> tuple[Tensor, DynamicCache]:
        cache = DynamicCache(config=self.model.config)
        keep = [position > 0 for position in range(len(prompt))]
        self.tap.prepare(rows, [keep] * len(rows), [TokenSpan(0, len(prompt), len(prompt))] * len(rows))
        return self._step(torch.tensor([prompt] * len(rows)), cache), cache

    def _step(self, ids: Tensor, cache: DynamicCache, **more: Any) -> Tensor:
        """`ids [B, T]` → logits of the last one [B, V]"""
        output = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **more)
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def _choose(self, answers: Sequence["_Answer"], steered: Tensor, base: Tensor) -> list[int]:
        ours, theirs = torch.log_softmax(steered, -1), torch.log_softmax(base, -1)
        kl = (ours.exp() * (ours - theirs)).sum(-1).tolist()
        drawn = [answer.draw(row) for answer, row in zip(answers, steered, strict=True)]
        for row, (answer, token) in enumerate(zip(answers, drawn, strict=True)):
            answer.take(token, -float(theirs[row, token]), kl[row], self.stop_ids)
        return drawn


class _Answer:
    """An answer during generation; tokens after its end are discarded."""

    def __init__(self, prompt: tuple[int, ...], seed: int) -> None:
        sampling = SamplingParams(temperature=TEMPERATURE, top_p=TOP_P, seed=seed)
        self.sequence = EngineSequence(Generate(id="", prompt=prompt, max_tokens=NEW_TOKENS, sampling=sampling))
        self.sequence.sampler_state = sampler.new_sampler_state(sampling, torch.device("cpu"))
        self.nll: list[float] = []
        self.kl: list[float] = []

    def draw(self, logits: Tensor) -> int:
        (best,) = sampler.argmax_tokens(logits[None])
        return sampler.sample_token(self.sequence, logits, best).token

    def take(self, token: int, nll: float, kl: float, stop_ids: set[int]) -> None:
        self.sequence.is_cancelled |= token in stop_ids
        if not self.sequence.is_cancelled:
            self.sequence.output_ids.append(token)
            self.nll.append(nll)
            self.kl.append(kl)

    def written(self, tokenizer: Tokenizer) -> Written:
        return Written(tokenizer.decode(self.sequence.output_ids), mean(self.nll), mean(self.kl))


def mean(values: Iterable[float]) -> float | None:
    """None: of nothing."""
    kept = list(values)
    return sum(kept) / len(kept) if kept else None
