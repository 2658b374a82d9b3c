"""`millm attach`: attach an SAE of the library to the model that is loaded."""

from typing import Annotated

import msgspec
import typer

from millm.cli.changing import run_with_progress
from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.output import print_json, stdout_console
from millm.cli.remote import connect
from millm.cli.sheets import attached_sae_details
from millm.engine.messages import SaeFacts
from millm.status import SaeSpec, ServerStatus


def attach_sae(
    sae: Annotated[str, typer.Argument(metavar="SAE", help="As `millm list --saes` shows it.", show_default=False)],
    hook_point: Annotated[
        str | None,
        typer.Option("--hook-point", help="Where it belongs, if its files do not say: blocks.12.hook_resid_post."),
    ] = None,
    layer: Annotated[int | None, typer.Option(min=0, help="Only the layer, if its files say the rest.")] = None,
    allow_model_mismatch: Annotated[
        bool, typer.Option("--allow-model-mismatch", help="Although it was trained on another model of this width.")
    ] = False,
    replace: Annotated[
        str | None, typer.Option(metavar="SAE", help="In the place of this one, in one step.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Attach an SAE to the model that is loaded, and show what was measured.

    Example:

        millm attach google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71

    Answers that run go on. If it does not fit the model, nothing changes.
    """
    remote = connect(url, api_key)
    wanted = msgspec.to_builtins(
        SaeSpec(id=sae, hook_point=hook_point, layer=layer, allow_model_mismatch=allow_model_mismatch, replaces=replace)
    )
    facts = run_with_progress(remote, lambda: remote.request("POST", "/api/attachments", SaeFacts, wanted))
    if as_json:
        print_json(facts)
    else:
        model = remote.request("GET", "/api/status", ServerStatus).model
        stdout_console().print(attached_sae_details(facts, model.name if model else "the model"))
