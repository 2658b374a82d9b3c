"""Opens a model folder's tokenizer.json with the `tokenizers` library, or refuses it by name."""

from pathlib import Path

import tokenizers
from tokenizers import AddedToken

from millm.errors import InvalidModel
from millm.text.special_tokens import configured_token_id, declared_special_tokens, named_tokens


def open_backend(folder: Path, settings: dict[str, object]) -> tokenizers.Tokenizer:
    """The library's tokenizer with every declared special token special, and no truncation or padding."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InvalidModel(
            "the model has no tokenizer.json; write one with transformers: "
            "AutoTokenizer.from_pretrained(model).save_pretrained(folder)"
        )
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library's edge: it raises nothing more specific
        raise InvalidModel("the model's tokenizer.json cannot be read; download that file again") from error
    backend.no_truncation()
    backend.no_padding()
    _declare_special(backend, settings)
    return backend


def _declare_special(backend: tokenizers.Tokenizer, settings: dict[str, object]) -> None:
    """Marks tokens, but adds none: the model has no row for new ones."""
    known = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    for token in declared_special_tokens(settings):
        if token not in known and backend.token_to_id(token) is not None:
            backend.add_special_tokens([AddedToken(token, special=True, normalized=False)])


def read_token_names(backend: tokenizers.Tokenizer, folder: Path, settings: dict[str, object]) -> dict[str, str]:
    """`bos_token`, `eos_token`, … → the token. Where the tokenizer's files are silent (GPT-2), the model's
    configuration says what bos and eos are.
    """
    names = named_tokens(settings)
    for name in {"bos_token", "eos_token"} - names.keys():
        id = configured_token_id(folder, f"{name}_id")
        names[name] = None if id is None else backend.id_to_token(id)
    return {name: token for name, token in names.items() if token is not None}


def start_token_ids(backend: tokenizers.Tokenizer) -> tuple[int, ...]:
    """The ids that the post-processor puts before a text, usually the bos id or nothing. (`add_bos_token` in
    tokenizer_config.json changes nothing next to a tokenizer.json; transformers 5 drops it as well.)
    """
    plain, whole = backend.encode("a", add_special_tokens=False).ids, backend.encode("a").ids
    added = next((n for n in range(len(whole)) if whole[n : n + len(plain)] == plain), 0)
    return tuple(whole[:added])
