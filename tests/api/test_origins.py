"""Allowed and rejected web origins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millm.api.origins import Address, OriginRule, parse_origin
from millm.errors import CannotStart

HERE = Address("127.0.0.1", 8000)
RULE = OriginRule.allowing(("http://chat.lan:3000", "app://obsidian.md"))


@pytest.mark.parametrize(
    "origin",
    ["http://127.0.0.1:8000", "http://localhost:3000", "https://localhost", "http://[::1]:5173", "http://a.localhost",
     "http://chat.lan:3000", "HTTP://Chat.LAN:3000", "app://obsidian.md"],
)  # fmt: skip
def test_allowed_origins(origin: str) -> None:
    assert RULE.allows(origin, HERE)


@pytest.mark.parametrize(
    "origin",
    ["null", "", "file://", "file:///etc", "http://evil.example", "https://chat.lan:3000", "http://chat.lan",
     "http://chat.lan:3000/", "http://localhost.evil.example", "http://user@localhost", "http://localhost evil",
     "localhost", "//localhost", "chrome-extension://abc", "http://6.6.6.6:8000", "app://localhost"],
)  # fmt: skip
def test_rejected_origins(origin: str) -> None:
    assert not RULE.allows(origin, HERE)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://192.168.1.5:8000", Address("192.168.1.5", 8000)),
        ("https://llm.example.org", Address("llm.example.org")),
        ("http://box.local", Address("box.local", 80)),
        ("http://box.local:80", Address("box.local")),
    ],
)
def test_same_host_origin_is_allowed(origin: str, host: Address) -> None:
    assert RULE.allows(origin, host)
    assert not RULE.allows(origin, Address(host.name, 8123))
    assert not RULE.allows(origin, HERE)


@pytest.mark.parametrize("origin", ["*", "null", "chat.lan", "http://chat.lan/", "file://"])
def test_invalid_origin_setting_is_rejected_at_start(origin: str) -> None:
    with pytest.raises(CannotStart, match="MILLM_ALLOWED_ORIGINS"):
        OriginRule.allowing((origin,))


@given(st.text(max_size=40))
def test_random_text_is_never_allowed_by_accident(text: str) -> None:
    """Every allowed origin is loopback, same-host or listed."""
    if RULE.allows(text, HERE):
        origin = parse_origin(text)
        assert origin
        assert origin.address.is_loopback or origin.address in (HERE, Address("chat.lan", 3000), Address("obsidian.md"))


@given(st.from_regex(r"[a-z]{1,8}://[a-z0-9.:@/\[\]-]{0,30}", fullmatch=True))
def test_odd_spellings_are_rejected(text: str) -> None:
    test_random_text_is_never_allowed_by_accident.hypothesis.inner_test(text)
