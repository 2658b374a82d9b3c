"""`millm serve`: any Hugging Face model, with SAEs attached."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from millm.cli.options import CpuInt8, Device, Dtype, HomeFolder, Host, Port, Quantization
from millm.cli.progress import Reporter
from millm.cli.server import Boot, run_server
from millm.hub.home import Home
from millm.hub.locate import locate_model, locate_sae
from millm.lifecycle import SaeSource
from millm.profiles.store import read_profile
from millm.settings import Settings


def run(
    model: Annotated[str, typer.Argument(help="A folder, or a Hugging Face id such as google/gemma-2-2b.")],
    sae: Annotated[
        list[str] | None,
        typer.Option(help="A folder or owner/repo/path; SOURCE@HOOK where it does not say its hook point. Repeatable."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Steer every request that does not say otherwise: a profile's .json file or its name."),
    ] = None,
    host: Host = None,
    port: Port = None,
    device: Device = None,
    dtype: Dtype = None,
    quantization: Quantization = None,
    cpu_int8: CpuInt8 = None,
    home: HomeFolder = None,
) -> None:
    """Serve a Hugging Face model, with SAEs attached and profiles to choose from.

    Example:

        millm serve google/gemma-2-2b --sae google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71

    Profiles are the .json files in MILLM_HOME/profiles; clients choose one as the model `NAME:PROFILE`.
    """
    settings = Settings.load(
        host=host,
        port=port,
        device=device,
        dtype=dtype,
        quantization=quantization,
        cpu_int8=cpu_int8,
        home=home,
    )

    def prepare(_home: Home, report: Reporter) -> Boot:
        token = settings.hf_token.get_secret_value() if settings.hf_token else None
        file = Path(profile) if profile and profile.endswith(".json") else None
        sources = [source.rpartition("@") if "@" in source else (source, "", "") for source in sae or ()]
        return Boot(
            model=locate_model(model, token, report),
            saes=[SaeSource(locate_sae(where, token, report), hook or None) for where, _, hook in sources],
            profile_files=[file] if file else [],
            active_profile=read_profile(file).name if file else profile,
        )

    run_server(settings, prepare, Console(stderr=True))
