"""Which tokens a model folder declares special, and what it calls them; reads it as transformers does."""

from collections.abc import Iterator
from pathlib import Path

from millm.text.folder import read_json


def read_tokenizer_config(folder: Path) -> dict[str, object]:
    """tokenizer_config.json, completed as transformers does by the older special_tokens_map.json."""
    settings = read_json(folder, "tokenizer_config.json")
    if "added_tokens_decoder" in settings:
        return settings
    return settings | read_json(folder, "special_tokens_map.json")


def named_tokens(settings: dict[str, object]) -> dict[str, str | None]:
    """`bos_token`, `eos_token`, … and what they are; None where the folder says that there is none."""
    return {
        name: _token_content(value)
        for name, value in settings.items()
        if name.endswith("_token") and (value is None or _token_content(value) is not None)
    }


def declared_special_tokens(settings: dict[str, object]) -> Iterator[str]:
    """Every token declared special outside tokenizer.json (where most models declare them)."""
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
    """`bos_token_id` or `eos_token_id` of the model's configuration: the first, where it lists several."""
    for file in ("generation_config.json", "config.json"):
        value = read_json(folder, file).get(name)
        first = value[0] if isinstance(value, list) and value else value
        if type(first) is int and first >= 0:
            return first
    return None


def _token_content(token: object) -> str | None:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) and content else None
