"""A GPU: tokens per second with and without CUDA graphs, cost of steering and watching, weights in 8 and 4 bits.

On a model of Gemma-2-2B's shape with random weights in bfloat16, and an SAE of the shape of Gemma Scope's 16k ones at
layer 20: the text is noise, the speed is the real model's. Speeds of concurrent readers are of
one run each; overheads are pairwise ABBA over two servers, as in benchmarks/overhead.py.
Result: benchmarks/results/gpu.json, saved after every section.

    python -m benchmarks.gpu [--shape gemma-2-2b] [--device cuda] [--tokens 128] [--blocks 12] [--minutes 2]
"""

import argparse
import tempfile
from collections.abc import Mapping
from functools import partial
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks import options, readers, servers, standin
from benchmarks.overhead import ONE, WATCHED, asker, mode
from benchmarks.record import Record
from benchmarks.servers import Running
from millm.cli.bench import RequestBody, summarize_percentiles

REQUESTS = {1: 3, 8: 24, 32: 96}
"""Readers at once → requests."""
ON: RequestBody = {"ignore_eos": True}
MODES: Mapping[str, RequestBody] = {
    "add-1": {"steering": ONE},
    "watch-32": {"steering": None, "activations": WATCHED},
    "watch-32+add": {"steering": ONE, "activations": WATCHED},
}


def main() -> None:
    parser = options.with_blocks(options.parser(__doc__, tokens=128), blocks=12, minutes=2)
    parser.add_argument("--shape", choices=standin.SHAPES, default="gemma-2-2b", help="of the model and the SAE")
    parser.add_argument("--device", default="cuda", help="as MILLM_DEVICE")
    arguments = options.parse(parser)
    description = f"{arguments.shape}'s shape, random weights in bfloat16; answers of {arguments.tokens} tokens, greedy"
    record = Record(arguments.results / "gpu.json", description)
    with tempfile.TemporaryDirectory() as scratch:
        shape, folder = standin.SHAPES[arguments.shape], Path(scratch)
        model = standin.write_model(folder / arguments.shape, shape, arguments.device)
        sae = standin.write_sae(folder / "sae", shape, arguments.shape)
        measure(record, model, sae, folder, arguments)


def measure(record: Record, model: Path, sae: Path, folder: Path, arguments: argparse.Namespace) -> None:
    serve = partial(servers.millm, model, device=arguments.device)
    for graphs in ("off", "auto"):
        with (
            serve(folder / f"plain-{graphs}", graphs=graphs) as plain,
            serve(folder / f"tapped-{graphs}", "--sae", str(sae), graphs=graphs) as tapped,
        ):
            record.section(f"graphs-{graphs}/runner", partial(runner, tapped))
            record.section(f"graphs-{graphs}/same", partial(same, plain, tapped))
            record.section(f"graphs-{graphs}/levels", partial(levels, tapped, arguments.tokens))
            record.section(f"graphs-{graphs}/modes", partial(modes, plain, tapped, arguments))
    for bits in ("8bit", "4bit"):
        with serve(folder / bits, "--sae", str(sae), quantization=bits, graphs="auto") as small:
            record.section(f"{bits}/runner", partial(runner, small))
            record.section(f"{bits}/levels", partial(levels, small, arguments.tokens, {1: 2}))


def runner(server: Running) -> object:
    """The runner, the reason for it, and its memory."""
    facts = server.remote.request("GET", "/api/status", dict[str, Any])["model"]["facts"]
    return {name: facts[name] for name in ("runner", "runner_reason", "device", "dtype", "weights", "memory")} | {
        "ready_seconds": server.ready_seconds
    }


def same(plain: Running, tapped: Running) -> dict[str, object]:
    """Whether an SAE that is attached and idle changes nothing, and how much a steering adds, as a share of ‖h‖."""
    base, idle, steered = (
        answer(server, {"steering": steering}) for server, steering in ((plain, None), (tapped, None), (tapped, ONE))
    )
    words = [body["choices"][0]["message"]["content"] for body in (base, idle)]
    return {"idle_is_base": words[0] == words[1], "delta_norm_ratio": steered["millm"]["delta_norm_ratio"]}


def answer(server: Running, extra: RequestBody) -> Any:
    messages = [{"role": "user", "content": "Tell me about the sea."}]
    body: RequestBody = {"messages": messages, "temperature": 0, "max_tokens": 64, **ON, **extra}
    request_body = {"model": server.remote.choose_model(None), **body}
    return server.remote.request("POST", "/v1/chat/completions", dict[str, Any], request_body)


def levels(server: Running, tokens: int, requests: Mapping[int, int] = REQUESTS) -> object:
    return readers.levels(server, server.remote.choose_model(None), tokens, requests, {"steering": ONE, **ON})


def modes(plain: Running, tapped: Running, arguments: argparse.Namespace) -> dict[str, object]:
    """Per mode, the figures of overhead.py, and the time to the first token of a short prompt."""
    numbers = count(1), count(1)
    first_tokens: list[float] = []
    ends = monotonic() + 60 * arguments.minutes
    figures: dict[str, object] = {}
    for index, (name, extra) in enumerate(MODES.items()):
        base = asker(plain, {"steering": None, **ON}, arguments.tokens, numbers[0])
        other = asker(tapped, {**extra, **ON}, arguments.tokens, numbers[1])
        share = (ends - monotonic()) / (len(MODES) - index)
        figures[name] = mode(base, other, arguments.blocks, share, first_tokens)
    return figures | {"first_token_ms": summarize_percentiles(first_tokens, scale=1000)}


if __name__ == "__main__":
    main()
