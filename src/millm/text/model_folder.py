"""How a model's folder wants texts to become vectors: what sentence-transformers' own files in it say.

Honoured exactly or refused by name: a vector that was made otherwise than those it is compared with is worth nothing.
Format: github.com/huggingface/sentence-transformers (modules.json, 1_Pooling/config.json, sentence_bert_config.json).

Whether a checkpoint can write: has it a head that turns hidden states into tokens? By what it calls itself.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast, get_args

from millm.engine.messages import Pooling
from millm.errors import InvalidModel
from millm.text.tokenizer import read_json, read_tokenizer_config

_HEADLESS_ARCHITECTURE = re.compile(r"\w+ForMaskedLM|\w+(?<!LMHead)(?<!DoubleHeads)Model")


def is_generative_model(folder: Path) -> bool:
    """False for `BertModel`, `BertForMaskedLM` and the like, which only embed. What has no name is tried as a writer.

    Raises InvalidModel for a config.json that is none.
    """
    return is_generative_config(read_json(folder, "config.json"))


def is_generative_config(config: Mapping[str, object]) -> bool:
    """The same of a configuration that was read."""
    architectures = config.get("architectures")
    names = [str(name) for name in architectures] if isinstance(architectures, list) else []
    return not names or not all(_HEADLESS_ARCHITECTURE.fullmatch(name) for name in names)


SUPPORTED_MODULES = ("Transformer", "Pooling", "Normalize")
EMBEDDING_TASK = "feature-extraction"
_OLD_POOLING_NAMES: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
}


@dataclass(frozen=True)
class EmbeddingConfig:
    """Vectors are always of unit length, whether or not the folder has a Normalize module."""

    pooling: Pooling = "mean"
    """sentence-transformers' own default for a model without its files."""
    max_tokens: int | None = None
    """Tokens of a text, if less than the model's context."""
    lower_case: bool = False
    prompt: str = ""
    """Put before every text."""

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Raises InvalidModel, naming the module or the pooling that cannot be had."""
        if not (folder / "modules.json").is_file():
            return cls()
        pooling_folder = _pooling_folder(folder)
        settings = _read_transformer_settings(folder)
        longest = settings.get("max_seq_length", read_tokenizer_config(folder).get("model_max_length"))
        return cls(
            pooling="mean" if pooling_folder is None else _read_pooling(folder, pooling_folder),
            max_tokens=longest if isinstance(longest, int) else None,
            lower_case=settings.get("do_lower_case") is True,
            prompt=_read_default_prompt(folder),
        )

    def prepare_text(self, text: str) -> str:
        """The text as the model's tokenizer is to have it."""
        whole = self.prompt + text
        return whole.lower() if self.lower_case else whole


def _pooling_folder(folder: Path) -> str | None:
    found = None
    for kind, path in _read_modules(folder):
        if kind not in SUPPORTED_MODULES:
            raise InvalidModel(
                f"this model's vectors go through sentence-transformers' module {kind!r}, which is not supported;"
                f" {', '.join(SUPPORTED_MODULES)} are"
            )
        if kind == "Transformer" and path:
            raise InvalidModel(f"the model itself is in this folder's {path!r}; give that folder")
        if kind == "Pooling":
            found = path
    return found


def _read_modules(folder: Path) -> Iterator[tuple[str, str]]:
    """(kind, folder inside) in the order in which they are run."""
    try:
        modules = json.loads((folder / "modules.json").read_bytes())
        for module in modules:
            yield str(module["type"]).rpartition(".")[2], str(module.get("path", ""))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidModel(
            "the model's modules.json is no list of sentence-transformers' modules; download that file again"
        ) from error


def _read_pooling(folder: Path, subfolder: str) -> Pooling:
    settings = read_json(folder / subfolder, "config.json")
    if not settings:
        raise InvalidModel(
            f"the model's {subfolder}/config.json, which says how to pool, is missing; download it again"
        )
    asked = settings.get("pooling_mode") or [
        _OLD_POOLING_NAMES.get(name, name.removeprefix("pooling_mode_"))
        for name, value in settings.items()
        if name.startswith("pooling_mode_") and value is True
    ]
    modes = [asked] if isinstance(asked, str) else asked
    if not isinstance(modes, list) or len(modes) != 1 or modes[0] not in get_args(Pooling):
        raise InvalidModel(f"this model pools by {asked!r}; one of {', '.join(get_args(Pooling))} can be had")
    if settings.get("include_prompt") is False and _read_default_prompt(folder):
        raise InvalidModel("this model leaves its default prompt out of its pooling, which is not supported")
    return cast(Pooling, modes[0])


def _read_transformer_settings(folder: Path) -> dict[str, object]:
    """Of the Transformer module; the file is called after the model's family. Newer versions say what it gives out."""
    names = sorted(path.name for path in folder.glob("sentence_*_config.json"))
    settings = read_json(folder, names[0]) if names else {}
    task = settings.get("transformer_task", EMBEDDING_TASK)
    if task != EMBEDDING_TASK:
        raise InvalidModel(f"this model's vectors come from the task {task!r}; only {EMBEDDING_TASK!r} can be had")
    return settings


def _read_default_prompt(folder: Path) -> str:
    settings = read_json(folder, "config_sentence_transformers.json")
    prompts, name = settings.get("prompts"), settings.get("default_prompt_name")
    if name is None:
        return ""
    if not isinstance(prompts, dict) or not isinstance(prompts.get(name), str):
        raise InvalidModel(f"this model's default prompt {name!r} is not among its prompts; download its files again")
    return cast(str, prompts[name])
