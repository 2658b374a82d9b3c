"""Which web pages may ask: the server's own, those on loopback, and those that the operator lists.

A browser says in `Origin` whose page asks. `null` and `file://` could be anybody's.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from millm.errors import CannotStart
from millm.guard.hosts import Address, parse_address

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(.+)", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Origin:
    scheme: str
    address: Address

    @property
    def is_web(self) -> bool:
        return self.scheme in _DEFAULT_PORTS

    def is_same_host(self, host: Address) -> bool:
        """The page came from the very address that it asks; behind a proxy with TLS only the scheme differs."""
        usual = _DEFAULT_PORTS.get(self.scheme)
        return self.address.name == host.name and (self.address.port or usual) == (host.port or usual)


def parse_origin(text: str) -> Origin | None:
    """`scheme://host[:port]`; None for anything else, so for `null`, `file://` and a whole URL."""
    found = _ORIGIN.fullmatch(text.lower())
    address = parse_address(found[2]) if found else None
    return Origin(found[1], address) if found and address else None


@dataclass(frozen=True)
class OriginRule:
    """The sites that are let in."""

    listed: frozenset[Origin]

    @classmethod
    def allowing(cls, origins: Iterable[str]) -> "OriginRule":
        """Raises CannotStart."""
        return cls(frozenset(_checked_origin(text) for text in origins))

    def allows(self, text: str, host: Address) -> bool:
        """`host`: what the request asks for, and is known to be ours: else a rebound page would be its own."""
        origin = parse_origin(text)
        if origin is None:
            return False
        return origin in self.listed or (origin.is_web and (origin.address.is_loopback or origin.is_same_host(host)))


def _checked_origin(text: str) -> Origin:
    origin = parse_origin(text)
    if origin is None:
        raise CannotStart(f"MILLM_ALLOWED_ORIGINS: {text!r} is no origin such as `http://chat.lan:3000`")
    return origin
