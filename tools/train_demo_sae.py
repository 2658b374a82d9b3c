"""Train a sparse autoencoder like the demo's from text, on a CPU or a GPU, and measure it on text it has not seen.

    python tools/train_demo_sae.py --model ~/.cache/millm/demo/<lock> --out my-sae

One file, to be read from top to bottom: text, activations, training, a folder in SAELens' layout, figures. Without
--text it reads the documentation of the Python that runs it, so that nothing has to be downloaded.
BatchTopK is https://arxiv.org/abs/2412.06410 (Bussmann et al.); the loss for dead features and the gradient
orthogonal to the decoder are https://arxiv.org/abs/2406.04093 (Gao et al.).
"""

import argparse
import ast
import json
import math
import pydoc_data.topics
import random
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

PIECE_CHARACTERS = 2000
HELD_OUT_SHARE = 0.05
OUTLIER_NORMS = 6.0  # tokens with a norm beyond this many medians are attention sinks, not text
DEAD_AFTER_STEPS = 50
AUX_SHARE = 1 / 32
CHAT_TOKENS = 96
BUFFER_TOKENS = 1 << 16  # activations in memory at a time
BLOCK_TOKENS = 256  # activations read from disk together

PROMPTS = (
    "Tell me about the sea.",
    "How do I bake bread?",
    "What is the capital of France?",
    "Write a short poem about rain.",
    "Explain photosynthesis to a child.",
    "Who are you?",
    "Give me three tips for learning a language.",
    "What is a prime number?",
    "Write a Python function that reverses a list.",
    "Tell me a story about a fox.",
    "How does money work?",
    "What is a contract?",
    "Describe a city at night.",
    "Plan a weekend in the mountains.",
)

# ------------------------------------------------------------------------------------------------------------- text


def read_pieces(files: list[Path]) -> list[str]:
    """Texts of PIECE_CHARACTERS each: the unit in which text is shuffled and held out."""
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    cut = PIECE_CHARACTERS
    return [text[at : at + cut] for text in texts or python_documentation() for at in range(0, len(text), cut)]


def python_documentation() -> Iterator[str]:
    """The language reference, the standard library's docstrings and the licences that came with this Python."""
    yield from pydoc_data.topics.topics.values()
    library = Path(sysconfig.get_path("stdlib"))
    for source in sorted(library.rglob("*.py")):
        if not {"test", "tests", "site-packages"} & set(source.parts):
            yield docstrings(source)
    for licence in sorted(library.rglob("LICENSE*")):
        if licence.is_file():
            yield licence.read_text(encoding="utf-8", errors="replace")


def docstrings(source: Path) -> str:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source.read_bytes())) if isinstance(node, documented)]
    return "\n\n".join(text for text in map(ast.get_docstring, nodes) if text)


def split(pieces: list[str], upper_share: float, seed: int) -> tuple[list[str], list[str]]:
    """(training, held out), shuffled; a share of each is repeated in upper case, for a feature that yells."""
    chance = random.Random(seed)
    chance.shuffle(pieces)
    held_out = max(1, round(len(pieces) * HELD_OUT_SHARE))

    def with_capitals(some: list[str]) -> list[str]:
        both = some + [piece.upper() for piece in some if chance.random() < upper_share]
        chance.shuffle(both)
        return both

    return with_capitals(pieces[held_out:]), with_capitals(pieces[:held_out])


def contexts(pieces: list[str], tokenizer: Any, length: int) -> list[list[int]]:
    """Token ids, at most `length` together and at least two: position 0 of each will be left out."""
    encoded = [tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"] for piece in pieces]
    cut = [ids[at : at + length] for ids in encoded for at in range(0, len(ids), length)]
    return [ids for ids in cut if len(ids) > 1]


@torch.inference_mode()
def chat_contexts(model: Any, tokenizer: Any, samples: int, length: int) -> list[list[int]]:
    """The model's own answers, template and all: what it sees when people talk to it."""
    found = []
    for number in range(samples):
        turn = [{"role": "user", "content": PROMPTS[number % len(PROMPTS)]}]
        inputs = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        inputs = inputs.to(model.device)
        answer = model.generate(**inputs, max_new_tokens=CHAT_TOKENS, do_sample=True, temperature=0.8)
        found.append(answer[0].tolist()[:length])
    return found


# ------------------------------------------------------------------------------------------------------ activations


@dataclass(frozen=True)
class Activations:
    """The residual stream at one hook point, in a file."""

    rows: npt.NDArray[np.float16]
    """[tokens, d]"""
    inliers: npt.NDArray[np.int64]
    """Rows that are not outliers."""
    median_norm: float

    def batches(self, size: int, seed: int) -> Iterator[Tensor]:
        """Shuffled batches [size, d], float32, for ever; a bounded part of the file in memory at a time."""
        chance = np.random.default_rng(seed)
        size = min(size, len(self.inliers))
        blocks = np.array_split(self.inliers, max(1, len(self.inliers) // BLOCK_TOKENS))
        together = max(1, min(BUFFER_TOKENS, len(self.inliers)) // BLOCK_TOKENS)
        while True:
            order = chance.permutation(len(blocks))
            for at in range(0, len(order), together):
                picked = np.concatenate([blocks[i] for i in order[at : at + together]])
                buffer = torch.from_numpy(self.rows[picked][chance.permutation(len(picked))]).float()
                yield from (buffer[start : start + size] for start in range(0, len(buffer) - size + 1, size))

    def once(self, size: int = 4096) -> Iterator[Tensor]:
        """Every row of `inliers` once, in order: [<= size, d], float32."""
        for at in range(0, len(self.inliers), size):
            yield torch.from_numpy(self.rows[self.inliers[at : at + size]]).float()


@torch.inference_mode()
def collect(model: Any, texts: list[list[int]], layer: int, limit: int, path: Path) -> Activations:
    """The output of `layer` at every position of the texts but their first, at most `limit` of them."""
    count = min(limit, sum(len(ids) - 1 for ids in texts))
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(count, model.config.hidden_size))
    norms = np.empty(count, np.float32)
    done = 0
    for residual in residuals(model, texts, layer):
        fitting = residual[: count - done]
        rows[done : done + len(fitting)] = fitting.half().numpy()
        norms[done : done + len(fitting)] = fitting.norm(dim=1).numpy()
        done += len(fitting)
        if done == count:
            break
    median = float(np.median(norms))
    return Activations(rows, np.flatnonzero(norms <= OUTLIER_NORMS * median), median)


def residuals(model: Any, texts: list[list[int]], layer: int, together: int = 16) -> Iterator[Tensor]:
    """The layer's output for one text after the other: [tokens - 1, d], float32, on the CPU."""
    seen: list[Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)  # [B, T, d]

    hook = model.model.layers[layer].register_forward_hook(keep)
    try:
        for at in range(0, len(texts), together):
            batch = texts[at : at + together]
            longest = max(map(len, batch))
            padded = torch.tensor([ids + [0] * (longest - len(ids)) for ids in batch])  # causal: unseen on the right
            model.model(padded.to(model.device), use_cache=False)
            hidden = seen.pop().float().cpu()
            yield from (hidden[i, 1 : len(ids)] for i, ids in enumerate(batch))
    finally:
        hook.remove()


# --------------------------------------------------------------------------------------------------------- training


class Trainee(torch.nn.Module):
    """A dictionary in the making, for inputs that are centred and have a norm of about √d."""

    def __init__(self, d: int, features: int, k: int) -> None:
        super().__init__()
        self.k = k
        directions = torch.nn.functional.normalize(torch.randn(features, d), dim=1)
        self.decoder = torch.nn.Parameter(directions)  # [F, d], unit rows
        self.encoder = torch.nn.Parameter(directions.T.clone())  # [d, F]
        self.encoder_bias = torch.nn.Parameter(torch.zeros(features))
        self.bias = torch.nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, d] → (pre-activations [B, F], the B·k largest of them and zeros [B, F], the smallest of these)."""
        pre = (x - self.bias) @ self.encoder + self.encoder_bias
        positive = pre.relu()
        smallest = positive.detach().flatten().kthvalue(positive.numel() - self.k * len(x) + 1).values
        return pre, positive * (positive >= smallest), smallest

    @torch.no_grad()
    def keep_gradient_on_sphere(self) -> None:
        gradient = self.decoder.grad
        assert gradient is not None
        gradient -= (gradient * self.decoder).sum(1, keepdim=True) * self.decoder

    @torch.no_grad()
    def normalise(self) -> None:
        self.decoder.div_(self.decoder.norm(dim=1, keepdim=True))


@dataclass(frozen=True)
class Scale:
    """x ↦ (x - mean) · factor: what training sees instead of the residual stream."""

    mean: Tensor
    factor: float

    @staticmethod
    def of(x: Tensor) -> "Scale":
        mean = x.mean(0)
        return Scale(mean, math.sqrt(x.shape[1]) / float((x - mean).norm(dim=1).mean()))

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.factor


@dataclass(frozen=True)
class Sae:
    """A finished JumpReLU dictionary, as it is on disk: in units of the residual stream."""

    W_enc: Tensor  # [d, F], float16
    W_dec: Tensor  # [F, d], float16
    b_enc: Tensor  # [F]
    b_dec: Tensor  # [d]
    threshold: Tensor  # [F]

    def encode(self, x: Tensor) -> Tensor:
        pre = x @ self.W_enc.float() + self.b_enc  # [B, F]
        return pre.relu() * (pre > self.threshold)

    def decode(self, activations: Tensor) -> Tensor:
        return activations @ self.W_dec.float() + self.b_dec  # [B, d]


@torch.no_grad()
def fold(trainee: Trainee, scale: Scale, threshold: float) -> Sae:
    """Undo centring and scaling: relu((x-m)s·W + b) / s = relu(x·W + b/s - m·W), so W stays as it is."""
    encoder = trainee.encoder.half()  # rounded first, so that the folded mean fits what is saved
    shift = scale.mean + trainee.bias / scale.factor
    return Sae(
        W_enc=encoder,
        W_dec=trainee.decoder.half(),
        b_enc=trainee.encoder_bias / scale.factor - shift @ encoder.float(),
        b_dec=shift,
        threshold=torch.full_like(trainee.encoder_bias, threshold / scale.factor),
    )


Curve = list[tuple[int, float]]
"""(step, variance explained of that step's batch)"""


def train(
    data: Activations, features: int, k: int, steps: int, batch: int, *, seed: int, device: str
) -> tuple[Sae, Curve]:
    """BatchTopK for `steps` batches; the threshold is the mean of the smallest ones in the last tenth of them."""
    stream = data.batches(batch, seed)
    scale = Scale.of(next(data.once(BUFFER_TOKENS)).to(device))
    trainee = Trainee(data.rows.shape[1], features, k).to(device)
    optimizer = torch.optim.Adam(trainee.parameters(), lr=6e-4)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 4 * (1 - step / steps)))
    idle = torch.zeros(features, device=device)  # steps since each feature was last active
    smallest_selected: list[float] = []
    curve: Curve = []
    for step in range(steps):
        x = scale(next(stream).to(device))
        pre, activations, smallest = trainee(x)
        error = x - (activations @ trainee.decoder + trainee.bias)
        unexplained = error.square().sum() / (x - x.mean(0)).square().sum()
        loss = unexplained + AUX_SHARE * dead_loss(trainee, pre, error.detach(), idle > DEAD_AFTER_STEPS)
        optimizer.zero_grad()
        loss.backward()
        trainee.keep_gradient_on_sphere()
        optimizer.step()
        decay.step()
        trainee.normalise()
        idle = torch.where(activations.detach().any(0), 0, idle + 1)
        smallest_selected.append(float(smallest))
        if step % max(1, steps // 20) == 0 or step == steps - 1:
            curve.append((step, 1 - unexplained.item()))
            dead = int((idle > DEAD_AFTER_STEPS).sum())
            print(f"step {step:>6}  variance explained {curve[-1][1]:.3f}  dead {dead}", flush=True)
    settled = smallest_selected[-max(1, steps // 10) :]
    return fold(trainee, scale, sum(settled) / len(settled)), curve


def dead_loss(trainee: Trainee, pre: Tensor, error: Tensor, dead: Tensor) -> Tensor:
    """How badly the dead features' largest pre-activations explain what is left: gives them something to learn."""
    if not dead.any():
        return error.new_zeros(())
    strongest = pre[:, dead].topk(min(int(dead.sum()), error.shape[1] // 2), dim=1)
    activations = torch.zeros_like(pre[:, dead]).scatter(1, strongest.indices, strongest.values.relu())
    return (error - activations @ trainee.decoder[dead]).square().sum() / error.square().sum()


# ---------------------------------------------------------------------------------------------------- save, measure


def save(sae: Sae, folder: Path, layer: int, context: int, model_name: str, tokens: int) -> None:
    """SAELens' layout (6.x): cfg.json and sae_weights.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.cpu().contiguous() for name, value in vars(sae).items()}
    save_file(tensors, folder / "sae_weights.safetensors")
    configuration = {
        "architecture": "jumprelu",
        "d_in": len(sae.b_dec),
        "d_sae": len(sae.b_enc),
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.54.12",
            "model_name": model_name,
            "hook_name": f"blocks.{layer}.hook_resid_post",
            "hf_hook_name": f"model.layers.{layer}",
            "prepend_bos": False,
            "context_size": context,
            "training_tokens": tokens,
        },
    }
    (folder / "cfg.json").write_text(json.dumps(configuration, indent=1), encoding="utf-8")


def load(folder: Path) -> Sae:
    return Sae(**load_file(folder / "sae_weights.safetensors"))


@dataclass(frozen=True)
class Measurements:
    """What an SAE does on held-out text, outliers and first positions left out."""

    variance_explained: float
    l0: float
    dead_features: int
    """Features that were active at no held-out token (with few tokens, rare looks dead)."""
    tokens: int
    outliers: int
    median_norm: float


@torch.inference_mode()
def measure(sae: Sae, held_out: Activations) -> Measurements:
    tokens = len(held_out.inliers)
    mean = torch.stack([x.sum(0) for x in held_out.once()]).sum(0) / tokens
    unexplained = total = active = 0.0
    seen = torch.zeros(len(sae.b_enc), dtype=torch.bool)
    for x in held_out.once():
        activations = sae.encode(x)
        unexplained += float((x - sae.decode(activations)).square().sum())
        total += float((x - mean).square().sum())
        active += float((activations > 0).sum())
        seen |= (activations > 0).any(0)
    return Measurements(
        variance_explained=1 - unexplained / total,
        l0=active / tokens,
        dead_features=int((~seen).sum()),
        tokens=tokens,
        outliers=len(held_out.rows) - tokens,
        median_norm=held_out.median_norm,
    )


# ----------------------------------------------------------------------------------------------------- command line


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    option = parser.add_argument
    option("--model", type=Path, required=True, help="a Hugging Face folder with a Llama-like model")
    option("--out", type=Path, required=True, help="folder for the SAE and measurements.json")
    option("--text", type=Path, nargs="+", default=[], help="text files (default: Python's documentation)")
    option("--measure", type=Path, help="measure the SAE in this folder instead of training one")
    option("--layer", type=int, default=20)
    option("--features", type=int, default=4096)
    option("--k", type=int, default=32, help="active features per token, on average")
    option("--steps", type=int, default=2200)
    option("--batch", type=int, default=2048, help="tokens per step")
    option("--context", type=int, default=192, help="tokens per text")
    option("--tokens", type=int, default=1_200_000, help="most tokens to collect")
    option("--held-out-tokens", type=int, default=20_000, help="most tokens to measure on")
    option("--chat-samples", type=int, default=0, help="answers of the model's own to train on as well")
    option("--upper-case", type=float, default=0.12, help="share of the text repeated in upper case")
    option("--model-name", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="for cfg.json")
    option("--seed", type=int, default=0)
    option("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    chosen = options(arguments)
    torch.manual_seed(chosen.seed)
    tokenizer = AutoTokenizer.from_pretrained(chosen.model)
    model = AutoModelForCausalLM.from_pretrained(chosen.model, dtype=torch.float32).to(chosen.device).eval()
    training, held_out = split(read_pieces(chosen.text), chosen.upper_case, chosen.seed)
    texts = chat_contexts(model, tokenizer, chosen.chat_samples, chosen.context)
    del model.model.layers[chosen.layer + 1 :]  # layers after the hook point are not needed any more
    with tempfile.TemporaryDirectory() as scratch:
        unseen = contexts(held_out, tokenizer, chosen.context)
        test = collect(model, unseen, chosen.layer, chosen.held_out_tokens, Path(scratch) / "test.npy")
        curve: Curve = []
        if chosen.measure is None:
            texts += contexts(training, tokenizer, chosen.context)
            random.Random(chosen.seed).shuffle(texts)
            data = collect(model, texts, chosen.layer, chosen.tokens, Path(scratch) / "train.npy")
            curve = train_and_save(data, chosen)
        report(measure(load(chosen.measure or chosen.out), test), curve, chosen.out)


def train_and_save(data: Activations, chosen: argparse.Namespace) -> Curve:
    print(f"{len(data.rows)} tokens to train on, {len(data.inliers)} without the outliers", flush=True)
    sae, curve = train(
        data, chosen.features, chosen.k, chosen.steps, chosen.batch, seed=chosen.seed, device=chosen.device
    )
    save(sae, chosen.out, chosen.layer, chosen.context, chosen.model_name, len(data.inliers))
    return curve


def report(figures: Measurements, curve: Curve, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps({**asdict(figures), "curve": curve}, indent=1)
    (folder / "measurements.json").write_text(content, encoding="utf-8")
    for name, value in asdict(figures).items():
        print(f"{name:>20}: {value:.4g}" if isinstance(value, float) else f"{name:>20}: {value}")


if __name__ == "__main__":
    main()
