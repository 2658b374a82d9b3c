"""Who asks, by the key that came, and what that allows. Knows no route."""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pydantic import SecretStr

from millm.errors import InvalidApiKey
from millm.settings import Settings

Scope = Literal["infer", "monitor", "admin"]
"""Ask the model; look at what it does and for whom; change what it does for all."""

_BEARER_PREFIX = "bearer "


@dataclass(frozen=True)
class Principal:
    """`id` is fit for a log: never a key."""

    id: str
    scopes: frozenset[Scope]

    def has_scope(self, scope: Scope) -> bool:
        return scope in self.scopes


_ALL_SCOPES: frozenset[Scope] = frozenset(("infer", "monitor", "admin"))
_USER_SCOPES: frozenset[Scope] = frozenset(("infer", "monitor"))


def identify(settings: Settings, authorization: str | None) -> Principal:
    """Without a configured key, whatever a client sends is ignored: OpenAI's always send something.

    Raises InvalidApiKey where a key is needed and `authorization` has none that is known.
    """
    api_keys, admin_keys = split_keys(settings.api_key), split_keys(settings.admin_key)
    sent = _bearer_token(authorization or "")
    if _matches_any(sent, admin_keys):
        return Principal("key:admin", _ALL_SCOPES)
    if _matches_any(sent, api_keys):
        return Principal("key:api", _USER_SCOPES if admin_keys else _ALL_SCOPES)
    if api_keys:
        raise InvalidApiKey("A valid API key is needed; send it as `Authorization: Bearer KEY`.")
    return Principal("anonymous", _USER_SCOPES if admin_keys else _ALL_SCOPES)


def split_keys(secret: SecretStr | None) -> tuple[str, ...]:
    """One or several, with commas between."""
    parts = secret.get_secret_value().split(",") if secret else ()
    return tuple(part.strip() for part in parts if part.strip())


def _bearer_token(authorization: str) -> str:
    has_bearer = authorization[: len(_BEARER_PREFIX)].lower() == _BEARER_PREFIX
    return authorization[len(_BEARER_PREFIX) :].strip() if has_bearer else ""


def _matches_any(sent: str, keys: Iterable[str]) -> bool:
    """In constant time for each key: how long it takes tells nothing of how near a guess is."""
    return any(hmac.compare_digest(sent.encode(), key.encode()) for key in keys)
