"""Every setting with its value and origin; keys and folders are withheld."""

from pathlib import Path

import httpx
import pytest

from millm.settings import Setting, Settings, list_settings

KEY = "sk-not-to-be-told"


def named(settings: Settings, name: str) -> Setting:
    return next(setting for setting in list_settings(settings) if setting.name == name)


def test_every_setting_has_value_and_origin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("MILLM_SLOTS=5\nMILLM_MAX_QUEUE=7\n")
    monkeypatch.setenv("MILLM_MAX_QUEUE", "9")
    settings = Settings.load(port=8123, host=None)
    assert [setting.name for setting in list_settings(settings)] == list(Settings.model_fields)
    origins = {name: (named(settings, name).value, named(settings, name).origin) for name in ("port", "slots")}
    assert origins == {"port": ("8123", "command line"), "slots": ("5", "file .env")}
    assert (named(settings, "max_queue").value, named(settings, "max_queue").origin) == ("9", "environment")
    assert (named(settings, "host").value, named(settings, "host").origin) == ("127.0.0.1", "default")
    assert named(settings, "max_queue").default == "512"


def test_lists_are_formatted_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLM_ALLOWED_HOSTS", "millm,*.lan")
    assert named(Settings.load(), "allowed_hosts").value == "millm,*.lan"


def test_values_of_keys_and_folders_are_withheld(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MILLM_HOME", str(tmp_path))
    monkeypatch.setenv("MILLM_ADMIN_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", KEY)
    all = list_settings(Settings.load(api_key=KEY))
    secret = {setting.name: setting.origin for setting in all if setting.is_kept_back}
    assert secret == {
        "home": "environment", "api_key": "command line", "admin_key": "environment", "demo_wheel": "default",
        "hf_token": "environment",
    }  # fmt: skip
    assert KEY not in repr(all)
    assert str(tmp_path) not in repr(all)


def test_settings_route(api: httpx.Client) -> None:
    all = {setting["name"]: setting for setting in api.get("/api/settings").raise_for_status().json()["settings"]}
    assert all["port"]["origin"] == "command line"
    assert all["home"]["variable"] == "MILLM_HOME"
