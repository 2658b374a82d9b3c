"""`millm estimate`: how much memory a model would take, before it is loaded."""

from typing import Annotated

import typer

from millm.cli.door import open_library
from millm.cli.memory import estimate_table
from millm.cli.options import ApiKey, AsJson, Url
from millm.cli.output import print_json, stdout_console
from millm.cli.wanted import parse_model_options


def estimate_memory(
    id: Annotated[str, typer.Argument(metavar="ID", help="As `millm list` shows it.", show_default=False)],
    quantization: Annotated[str | None, typer.Option(help="none, 8bit or 4bit.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens of one sequence (default: the model's own).")
    ] = None,
    slots: Annotated[int | None, typer.Option(min=1, max=256, help="Sequences that run at once.")] = None,
    sae: Annotated[list[str] | None, typer.Option(help="An SAE to attach. Repeatable.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Tell how much memory a model would take, part by part, without loading it.

    Example:

        millm estimate google/gemma-2-2b --quantization 4bit --context 8192 --slots 8

    What is not said is as the server has it.
    """
    wanted = parse_model_options(
        id, quantization=quantization, dtype=dtype, device=device, context=context, slots=slots
    )
    estimate = open_library(url, api_key).estimate(wanted, sae or ())
    if as_json:
        print_json(estimate)
    else:
        stdout_console().print(estimate_table(estimate))
