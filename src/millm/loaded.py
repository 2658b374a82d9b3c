"""The loaded model and attached SAEs, as the API process knows them."""

import time
from dataclasses import dataclass, field

from millm.engine.messages import ModelFacts, SaeFacts
from millm.hub.memory_estimate import Estimate
from millm.text.chat_template import ChatTemplate
from millm.text.model_folder import EmbeddingConfig
from millm.text.response_parser import ResponseTemplate
from millm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class LoadedModel:
    name: str
    """The `model` of requests, e.g. `smollm2-135m-instruct` or `google/gemma-2-2b`."""
    facts: ModelFacts
    tokenizer: Tokenizer
    chat_template: ChatTemplate
    response_template: ResponseTemplate | None = None
    """Its format of reasoning and tool calls, if the folder has one."""
    embedding_recipe: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    created: int = field(default_factory=lambda: int(time.time()))
    estimate: Estimate | None = None
    """The memory estimate of before the load."""


@dataclass(frozen=True)
class AttachedSae:
    facts: SaeFacts
    max_acts: dict[int, float]
    """Feature → maximum activation from its label: the unit `max_act`."""
