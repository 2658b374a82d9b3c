"""Keys in the CLI: commands send the key, and `serve` reports who can connect without one."""

import os
import subprocess
import sys

import pytest

from millm.cli.http_client import local_api_key
from millm.cli.serving import exposure_warnings
from millm.settings import Settings
from tests.api.conftest import Walled

KEY = "key-for-people"


def test_client_key_is_the_first_configured_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLM_API_KEY", f"{KEY}, another")
    assert local_api_key() == KEY
    monkeypatch.setenv("MILLM_API_KEY", "")
    assert local_api_key() is None


@pytest.mark.parametrize("command", ["chat", "bench"])
@pytest.mark.parametrize(
    ("options", "variable", "result"),
    [
        ((), None, "API key"),
        (("--api-key", KEY), None, "still loading"),
        ((), KEY, "still loading"),
        (("--api-key", "another"), KEY, "API key"),
    ],
)
def test_commands_send_the_key(
    walled: Walled, command: str, options: tuple[str, ...], variable: str | None, result: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "millm", command, "--url", walled(api_key=KEY), *options],
        env=os.environ | ({"MILLM_API_KEY": variable} if variable else {}),
        capture_output=True, text=True, input="",
    )  # fmt: skip
    assert done.returncode == 1
    assert result in done.stderr
    assert KEY not in done.stderr


@pytest.mark.parametrize(
    ("host", "settings", "result"),
    [
        ("127.0.0.1", {}, []),
        ("::1", {"api_key": KEY}, []),
        ("0.0.0.0", {}, ["without a key"]),
        ("192.168.1.5", {"api_key": KEY}, ["has the key"]),
        ("127.0.0.1", {"allowed_hosts": "*"}, ["rebinds DNS"]),
        ("0.0.0.0", {"allowed_hosts": "*"}, ["without a key", "rebinds DNS"]),
    ],
)
def test_exposure_is_reported(host: str, settings: dict[str, str], result: list[str]) -> None:
    warnings = exposure_warnings(Settings.load(**settings), host)
    assert len(warnings) == len(result)
    for warning, part in zip(warnings, result, strict=True):
        assert part in warning.text
        assert KEY not in warning.text
