"""Allowed and rejected host names, in all spellings."""

import ipaddress
import socket
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millm.api.origins import Address, HostRule, parse_address
from millm.errors import CannotStart

OURS = HostRule.allowing(())


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:8000", "a.localhost", "127.0.0.1:1", "[::1]:8000", "192.168.1.5", "box.local", "8.8.8.8",
     socket.gethostname()],
)  # fmt: skip
def test_own_names_are_allowed(host: str) -> None:
    address = parse_address(host)
    assert address
    assert OURS.allows(address)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost", "local", "millm", "2130706433",
     "0x7f.0.0.1", "127.1", "localhost."],
)  # fmt: skip
def test_foreign_names_are_rejected(host: str) -> None:
    address = parse_address(host)
    assert address
    assert not OURS.allows(address)


@pytest.mark.parametrize(
    "host",
    ["", ":8000", "a b", "a/b", "user@localhost", "localhost:", "localhost:x", "localhost:99999", "[::1", "::1",
     "[127.0.0.1]", "[zz]", "localhost,evil", "localhost\t", "lоcalhost", "*"],
)  # fmt: skip
def test_invalid_addresses_do_not_parse(host: str) -> None:
    assert parse_address(host) is None


def test_configured_names_are_allowed() -> None:
    rule = HostRule.allowing(("MiLLM", "*.lan", "llm.example.org"))
    allowed = [
        name for name in ("millm", "a.b.lan", "lan", "llm.example.org", "x.llm.example.org") if _allows(rule, name)
    ]
    assert allowed == ["millm", "a.b.lan", "llm.example.org"]
    assert not _allows(rule, "evil.example")
    assert _allows(HostRule.allowing(("*",)), "evil.example")


def _allows(rule: HostRule, name: str) -> bool:
    return rule.allows(Address(name))


@pytest.mark.parametrize("host", ["millm:8000", "http://millm", "a b", "**.lan", "*lan"])
def test_invalid_host_setting_is_rejected_at_start(host: str) -> None:
    with pytest.raises(CannotStart, match="MILLM_ALLOWED_HOSTS"):
        HostRule.allowing((host,))


@given(st.ip_addresses(), st.none() | st.integers(0, 65535))
def test_every_ip_literal_is_allowed(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int | None) -> None:
    name = f"[{ip}]" if ip.version == 6 else str(ip)
    address = parse_address(name if port is None else f"{name}:{port}")
    assert address == Address(str(ip), port)
    assert OURS.allows(address)


@given(st.text(max_size=40))
def test_parsed_addresses_agree_with_urllib(text: str) -> None:
    """Two parsers that disagree about a host are how checks are got around."""
    address = parse_address(text)
    if address:
        other = urlsplit(f"http://{text}/")
        assert (other.hostname, other.port, other.username, other.path) == (
            text.lower().split("]")[0][1:] if text.startswith("[") else address.name,
            address.port,
            None,
            "/",
        )


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=20))
def test_names_under_other_domains_are_rejected(name: str) -> None:
    assert not _allows(OURS, f"{name}.example")
