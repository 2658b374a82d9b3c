"""What the API process reads of a model's folder: its tokenizer and how it wants to be spoken to."""

from dataclasses import dataclass
from pathlib import Path

from millm.text.head import generates
from millm.text.prompt import ChatTemplate
from millm.text.recipe import Recipe
from millm.text.response_template import ResponseTemplate
from millm.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class TextSide:
    tokenizer: Tokenizer
    template: ChatTemplate
    responses: ResponseTemplate | None
    recipe: Recipe
    generates: bool

    @classmethod
    def of(cls, folder: Path) -> "TextSide":
        """Raises InvalidModel."""
        writes = generates(folder)
        tokenizer = Tokenizer.from_folder(folder, writes=writes)
        template = ChatTemplate.from_folder(folder, tokenizer)
        return cls(tokenizer, template, ResponseTemplate.from_folder(folder), Recipe.from_folder(folder), writes)
