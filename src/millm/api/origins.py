"""Host names and web origins that may use the server.

HostRule stops DNS rebinding: a page that rebinds its name sends that name as `Host`, so only known names and IP
literals, which need no DNS, are accepted (https://nvd.nist.gov/vuln/detail/CVE-2024-28224, Ollama). OriginRule stops
other pages: browsers send a page's `Origin`; `null` and `file://` can come from anywhere.
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
    """Host and port of a URL or `Host` header, in lower case; IPv6 without brackets, in its shortest form."""

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
    match = _ADDRESS.fullmatch(text.lower())
    if not match:
        return None
    port = int(match["port"]) if match["port"] else None
    if port is not None and port > _LARGEST_PORT:
        return None
    if match["v6"]:
        ip = _ip(match["v6"])
        return Address(str(ip), port) if ip and ip.version == 6 else None
    return Address(match["name"], port)


@dataclass(frozen=True)
class HostRule:
    """Host names that this server answers to."""

    names: frozenset[str]
    suffixes: tuple[str, ...]
    allows_all: bool = False

    @classmethod
    def allowing(cls, hosts: Iterable[str]) -> "HostRule":
        """`hosts`: `name`, `*.suffix` or `*`, added to localhost and the machine's own name. Raises CannotStart."""
        names = [host.lower() for host in hosts]
        for host in names:
            address = parse_address(host.removeprefix("*."))
            if host != "*" and (address is None or address.port is not None):
                raise CannotStart(
                    f"MILLM_ALLOWED_HOSTS: {host!r} is not a name without port, such as `millm`, `*.lan` or `*`"
                )
        return cls(
            names=frozenset(("localhost", socket.gethostname().lower(), *names)),
            suffixes=(".localhost", ".local", *(host[1:] for host in names if host.startswith("*."))),
            allows_all="*" in names,
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
        """The page was served by this server. The scheme may differ behind a TLS proxy."""
        default = _DEFAULT_PORTS.get(self.scheme)
        return self.address.name == host.name and (self.address.port or default) == (host.port or default)


def parse_origin(text: str) -> Origin | None:
    """`scheme://host[:port]`; None for anything else, such as `null`, `file://` or a URL with a path."""
    match = _ORIGIN.fullmatch(text.lower())
    address = parse_address(match[2]) if match else None
    return Origin(match[1], address) if match and address else None


@dataclass(frozen=True)
class OriginRule:
    """Web pages that may use the server: its own, those on loopback, and the listed ones."""

    listed: frozenset[Origin]

    @classmethod
    def allowing(cls, origins: Iterable[str]) -> "OriginRule":
        """Raises CannotStart."""
        listed = {text: parse_origin(text) for text in origins}
        for text, origin in listed.items():
            if origin is None:
                raise CannotStart(f"MILLM_ALLOWED_ORIGINS: {text!r} is not an origin such as `http://chat.lan:3000`")
        return cls(frozenset(origin for origin in listed.values() if origin))

    def allows(self, text: str, host: Address) -> bool:
        """`host`: of the request, already checked by HostRule; otherwise a rebound page would be same-host."""
        origin = parse_origin(text)
        if origin is None:
            return False
        return origin in self.listed or (origin.is_web and (origin.address.is_loopback or origin.is_same_host(host)))
