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
    """The model that answers, as the API process knows it."""

    name: str
    """What clients ask for, e.g. `smollm2-135m-instruct` or `google/gemma-2-2b`."""
    facts: ModelFacts
    tokenizer: Tokenizer
    chat_template: ChatTemplate
    response_template: ResponseTemplate | None = None
    """How it writes its reasoning and its calls, if it says so."""
    embedding_recipe: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    """How it wants texts to become vectors."""
    created: int = field(default_factory=lambda: int(time.time()))
    estimate: Estimate | None = None
    """What it was expected to take, before it was loaded."""


@dataclass(frozen=True)
class AttachedSae:
    """An SAE that is attached, with what is known about its features."""

    facts: SaeFacts
    max_acts: dict[int, float]
    """Feature → the largest activation its label records: the unit `max_act`."""
