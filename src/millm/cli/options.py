"""The options that several commands share.

A model as the options of `load` and `estimate` ask for it; what they leave out is the server's own setting.
"""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from millm.settings import Settings
from millm.status import ModelSpec

Host = Annotated[str | None, typer.Option(help="Address to listen on (MILLM_HOST; default 127.0.0.1).")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one (MILLM_PORT; default 8000).")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N (MILLM_DEVICE; default auto).")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16 (MILLM_DTYPE; default auto).")]
Quantization = Annotated[
    str | None,
    typer.Option(help="none, 8bit or 4bit: weights through bitsandbytes (MILLM_QUANTIZATION; default none)."),
]
CpuInt8 = Annotated[
    str | None,
    typer.Option("--cpu-int8", help="auto or off: linear layers in 8 bits on a CPU (MILLM_CPU_INT8; default auto)."),
]
HomeFolder = Annotated[Path | None, typer.Option("--home", help="Where everything is kept (MILLM_HOME).")]
Url = Annotated[
    str | None, typer.Option("--url", help="Where the server is (default http://127.0.0.1 and MILLM_PORT or 8000).")
]
ApiKey = Annotated[str | None, typer.Option("--api-key", help="The server's key, if it has one (MILLM_API_KEY).")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, on stdout.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def parse_model_options(id: str, **options: str | int | None) -> ModelSpec:
    """`options` as the settings and `WantedModel` name them. Raises CannotStart naming the one that is not allowed."""
    given = {name: value for name, value in options.items() if value is not None}
    Settings.load(**{name: value for name, value in given.items() if name in Settings.model_fields})
    return msgspec.convert({"id": id, **given}, ModelSpec)
