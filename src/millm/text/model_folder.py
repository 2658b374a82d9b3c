"""Read the small JSON files of a model folder: special tokens, architecture, sentence-transformers' settings."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast, get_args

from millm.engine.messages import Pooling
from millm.errors import InvalidModel

SUPPORTED_MODULES = ("Transformer", "Pooling", "Normalize")
EMBEDDING_TASK = "feature-extraction"
_OLD_POOLING_NAMES: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
}
_HEADLESS_ARCHITECTURE = re.compile(r"\w+ForMaskedLM|\w+(?<!LMHead)(?<!DoubleHeads)Model")


def read_json(folder: Path, name: str) -> dict[str, object]:
    """The object in `folder/name`, {} when the file is missing. Raises InvalidModel when it is not an object.

    Read with `json`: configurations hold `Infinity`, which strict parsers reject.
    """
    path = folder / name
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidModel(f"the model's {name} is not a JSON object; download that file again")
    return value


def read_tokenizer_config(folder: Path) -> dict[str, object]:
    """tokenizer_config.json, completed from the older special_tokens_map.json as transformers does."""
    settings = read_json(folder, "tokenizer_config.json")
    if "added_tokens_decoder" in settings:
        return settings
    return settings | read_json(folder, "special_tokens_map.json")


def named_tokens(settings: dict[str, object]) -> dict[str, str | None]:
    """`bos_token`, `eos_token`, … → the token, or None for one that is declared absent."""
    return {
        name: _token_content(value)
        for name, value in settings.items()
        if name.endswith("_token") and (value is None or _token_content(value) is not None)
    }


def declared_special_tokens(settings: dict[str, object]) -> Iterator[str]:
    """Special tokens declared outside tokenizer.json, as in most models."""
    yield from filter(None, named_tokens(settings).values())
    for key in ("additional_special_tokens", "extra_special_tokens"):
        extra = settings.get(key)
        values = extra.values() if isinstance(extra, dict) else extra if isinstance(extra, list) else ()
        yield from filter(None, map(_token_content, values))
    added = settings.get("added_tokens_decoder")
    for token in added.values() if isinstance(added, dict) else ():
        if isinstance(token, dict) and token.get("special") and (content := _token_content(token)):
            yield content


def configured_token_id(folder: Path, name: str) -> int | None:
    """`bos_token_id` or `eos_token_id` of the model's configuration; the first of several."""
    for file in ("generation_config.json", "config.json"):
        value = read_json(folder, file).get(name)
        first = value[0] if isinstance(value, list) and value else value
        if type(first) is int and first >= 0:
            return first
    return None


def _token_content(token: object) -> str | None:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) and content else None


def is_generative_model(folder: Path) -> bool:
    """False for `BertModel`, `BertForMaskedLM` and the like, which only embed; True without a named architecture.

    Raises InvalidModel when config.json is not a JSON object.
    """
    return is_generative_config(read_json(folder, "config.json"))


def is_generative_config(config: Mapping[str, object]) -> bool:
    """`is_generative_model` for the content of config.json."""
    architectures = config.get("architectures")
    names = [str(name) for name in architectures] if isinstance(architectures, list) else []
    return not names or not all(_HEADLESS_ARCHITECTURE.fullmatch(name) for name in names)


@dataclass(frozen=True)
class EmbeddingConfig:
    """How a model embeds text; unsupported settings are rejected, because vectors made otherwise cannot be compared.

    Vectors have unit length, with or without a Normalize module. Format: github.com/huggingface/sentence-transformers
    (modules.json, 1_Pooling/config.json, sentence_bert_config.json).
    """

    pooling: Pooling = "mean"  # default: sentence-transformers' for a model without its files
    max_tokens: int | None = None  # tokens of a text, if less than the model's context
    lower_case: bool = False
    prompt: str = ""  # prefix of every text

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Raises InvalidModel, naming a module or pooling mode that is not supported."""
        if not (folder / "modules.json").is_file():
            return cls()
        pooling_folder = _pooling_folder(folder)
        settings = _read_transformer_settings(folder)
        max_tokens = settings.get("max_seq_length", read_tokenizer_config(folder).get("model_max_length"))
        return cls(
            pooling="mean" if pooling_folder is None else _read_pooling(folder, pooling_folder),
            max_tokens=max_tokens if isinstance(max_tokens, int) else None,
            lower_case=settings.get("do_lower_case") is True,
            prompt=_read_default_prompt(folder),
        )

    def prepare_text(self, text: str) -> str:
        """The text with its prompt, in the model's case."""
        prompted = self.prompt + text
        return prompted.lower() if self.lower_case else prompted


def _pooling_folder(folder: Path) -> str | None:
    pooling_folder = None
    for kind, path in _read_modules(folder):
        if kind not in SUPPORTED_MODULES:
            raise InvalidModel(
                f"this model's vectors go through sentence-transformers' module {kind!r}, which is not supported;"
                f" {', '.join(SUPPORTED_MODULES)} are"
            )
        if kind == "Transformer" and path:
            raise InvalidModel(f"the model itself is in this folder's {path!r}; give that folder")
        if kind == "Pooling":
            pooling_folder = path
    return pooling_folder


def _read_modules(folder: Path) -> Iterator[tuple[str, str]]:
    """(kind, subfolder) in execution order."""
    try:
        modules = json.loads((folder / "modules.json").read_bytes())
        for module in modules:
            yield str(module["type"]).rpartition(".")[2], str(module.get("path", ""))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidModel(
            "the model's modules.json is not a list of sentence-transformers' modules; download that file again"
        ) from error


def _read_pooling(folder: Path, subfolder: str) -> Pooling:
    settings = read_json(folder / subfolder, "config.json")
    if not settings:
        raise InvalidModel(
            f"the model's {subfolder}/config.json, which says how to pool, is missing; download it again"
        )
    pooling_mode = settings.get("pooling_mode") or [
        _OLD_POOLING_NAMES.get(name, name.removeprefix("pooling_mode_"))
        for name, value in settings.items()
        if name.startswith("pooling_mode_") and value is True
    ]
    modes = [pooling_mode] if isinstance(pooling_mode, str) else pooling_mode
    if not isinstance(modes, list) or len(modes) != 1 or modes[0] not in get_args(Pooling):
        raise InvalidModel(f"pooling mode {pooling_mode!r} is not supported; supported: {', '.join(get_args(Pooling))}")
    if settings.get("include_prompt") is False and _read_default_prompt(folder):
        raise InvalidModel("this model leaves its default prompt out of its pooling, which is not supported")
    return cast(Pooling, modes[0])


def _read_transformer_settings(folder: Path) -> dict[str, object]:
    """Settings of the Transformer module, from a file named after the model's family. Raises InvalidModel for a
    module whose output is not an embedding.
    """
    names = sorted(path.name for path in folder.glob("sentence_*_config.json"))
    settings = read_json(folder, names[0]) if names else {}
    task = settings.get("transformer_task", EMBEDDING_TASK)
    if task != EMBEDDING_TASK:
        raise InvalidModel(f"this model's vectors come from the task {task!r}; only {EMBEDDING_TASK!r} is supported")
    return settings


def _read_default_prompt(folder: Path) -> str:
    settings = read_json(folder, "config_sentence_transformers.json")
    prompts, name = settings.get("prompts"), settings.get("default_prompt_name")
    if name is None:
        return ""
    if not isinstance(prompts, dict) or not isinstance(prompts.get(name), str):
        raise InvalidModel(f"this model's default prompt {name!r} is not among its prompts; download its files again")
    return cast(str, prompts[name])
