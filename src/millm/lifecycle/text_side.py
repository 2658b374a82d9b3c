"""What the API process reads of a model's folder: its tokenizer and how it wants to be spoken to."""

from dataclasses import dataclass
from pathlib import Path

from millm.text.chat_template import ChatTemplate
from millm.text.model_folder import EmbeddingConfig, is_generative_model
from millm.text.response_parser import ResponseTemplate
from millm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class TextAssets:
    tokenizer: Tokenizer
    chat_template: ChatTemplate
    response_template: ResponseTemplate | None
    embedding_recipe: EmbeddingConfig
    can_generate: bool

    @classmethod
    def from_folder(cls, folder: Path) -> "TextAssets":
        """Raises InvalidModel."""
        writes = is_generative_model(folder)
        tokenizer = Tokenizer.from_folder(folder, is_generative=writes)
        template = ChatTemplate.from_folder(folder, tokenizer)
        return cls(
            tokenizer, template, ResponseTemplate.from_folder(folder), EmbeddingConfig.from_folder(folder), writes
        )
