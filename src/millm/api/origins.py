"""Which names this server answers to: a web page that rebinds DNS asks by a name that is not among them.

An IP literal is always let through: no DNS was asked for it, so none can have been rebound.
Reasoning: https://nvd.nist.gov/vuln/detail/CVE-2024-28224 (Ollama).

Which web pages may ask: the server's own, those on loopback, and those that the operator lists.

A browser says in `Origin` whose page asks. `null` and `file://` could be anybody's.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from millm.errors import CannotStart

_ADDRESS = re.compile(r"(\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9_.-]+))(:(?P<port>[0-9]{1,5}))?", re.ASCII)
_LARGEST_PORT = 65535


@dataclass(frozen=True)
class Address:
    """A host as a URL or a `Host` header names it, in lower case; IPv6 without brackets, in its shortest form."""

    name: str
    port: int | None = None

    @property
    def is_literal(self) -> bool:
        """An IP address, not a name."""
        return _ip(self.name) is not None

    @property
    def is_loopback(self) -> bool:
        ip = _ip(self.name)
        return ip.is_loopback if ip else self.name == "localhost" or self.name.endswith(".localhost")


def parse_address(text: str) -> Address | None:
    """`name`, `name:port`, `1.2.3.4:port` or `[::1]:port`; None for anything else."""
    found = _ADDRESS.fullmatch(text.lower())
    if not found:
        return None
    port = int(found["port"]) if found["port"] else None
    if port is not None and port > _LARGEST_PORT:
        return None
    if found["v6"]:
        ip = _ip(found["v6"])
        return Address(str(ip), port) if ip and ip.version == 6 else None
    return Address(found["name"], port)


@dataclass(frozen=True)
class HostRule:
    """The names that are ours."""

    names: frozenset[str]
    suffixes: tuple[str, ...]
    allows_all: bool = False

    @classmethod
    def allowing(cls, hosts: Iterable[str]) -> "HostRule":
        """`hosts` (`name`, `*.suffix` or `*`) besides those that are always ours. Raises CannotStart."""
        wanted = [host.lower() for host in hosts]
        for host in wanted:
            address = parse_address(host.removeprefix("*."))
            if host != "*" and (address is None or address.port is not None):
                raise CannotStart(
                    f"MILLM_ALLOWED_HOSTS: {host!r} is no name such as `millm`, `*.lan` or `*`, without port"
                )
        return cls(
            names=frozenset(("localhost", socket.gethostname().lower(), *wanted)),
            suffixes=(".localhost", ".local", *(host[1:] for host in wanted if host.startswith("*."))),
            allows_all="*" in wanted,
        )

    def allows(self, address: Address) -> bool:
        return (
            self.allows_all or address.is_literal or address.name in self.names or address.name.endswith(self.suffixes)
        )


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


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
