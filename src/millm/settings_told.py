"""What this server was started with, setting by setting: its value, and where that comes from."""

import os
from typing import Any, Literal

import msgspec
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from millm.settings import Settings

Origin = Literal["command line", "environment", "file .env", "default"]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A setting, as it holds until the server is started again."""

    name: str
    variable: str
    """Of the environment, or of the file `.env`."""
    value: str | None
    """As it is written; None: there is none, or it is kept back."""
    default: str | None
    origin: Origin
    is_kept_back: bool
    """A key, or a folder of the server's: only where it comes from is told."""
    meaning: str


def list_settings(settings: Settings) -> list[Setting]:
    """Every setting, in the order of the documentation."""
    return [_describe_setting(settings, name, field) for name, field in Settings.model_fields.items()]


def _describe_setting(settings: Settings, name: str, field: FieldInfo) -> Setting:
    variable = str(field.validation_alias or f"MILLM_{name.upper()}")
    is_kept_back = any(kind in str(field.annotation) for kind in ("SecretStr", "Path"))
    return Setting(
        name=name,
        variable=variable,
        value=None if is_kept_back else _format_value(getattr(settings, name)),
        default=_format_value(field.default),
        origin=_origin(settings, name, variable),
        is_kept_back=is_kept_back,
        meaning=field.description or "",
    )


def _origin(settings: Settings, name: str, variable: str) -> Origin:
    if name in settings.command_line_names:
        return "command line"
    if name not in settings.model_fields_set:
        return "default"
    return "environment" if variable.upper() in map(str.upper, os.environ) else "file .env"


def _format_value(value: Any) -> str | None:
    if value is None or isinstance(value, SecretStr):
        return None
    return ",".join(value) if isinstance(value, tuple) else str(value)
