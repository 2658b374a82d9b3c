"""`millm serve`: any Hugging Face model, with SAEs attached."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from millm.cli.options import CpuInt8, Device, Dtype, HomeFolder, Host, Port, Quantization
from millm.cli.progress import ProgressReporter
from millm.cli.server import StartupPlan, run_server
from millm.errors import CannotStart
from millm.hub.home import Home
from millm.hub.locate import LocalCheckpoint, locate_model, locate_sae
from millm.settings import Settings
from millm.status import SaeSpec


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
        bool, typer.Option("--force", help="Load the model whatever the estimate of its memory says.")
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
        host=host,
        port=port,
        device=device,
        dtype=dtype,
        quantization=quantization,
        cpu_int8=cpu_int8,
        home=home,
    )
    file = Path(profile) if profile and profile.endswith(".json") else None
    by_name = None if file else profile

    def wanted(located: LocalCheckpoint, hook: str) -> tuple[SaeSpec, LocalCheckpoint]:
        sae = SaeSpec(id=located.name, hook_point=hook or None, allow_model_mismatch=allow_model_mismatch)
        return sae, located

    def prepare(_home: Home, report: ProgressReporter) -> StartupPlan:
        if model is None:
            return StartupPlan(active_profile=by_name, active_file=file, should_restore=not no_restore)
        token = settings.hf_token.get_secret_value() if settings.hf_token else None
        sources = [source.rpartition("@") if "@" in source else (source, "", "") for source in sae or ()]
        return StartupPlan(
            model=locate_model(model, token, report),
            saes=[wanted(locate_sae(where, token, report), hook) for where, _, hook in sources],
            active_profile=by_name,
            active_file=file,
            force=force,
        )

    run_server(settings, prepare, Console(stderr=True))
