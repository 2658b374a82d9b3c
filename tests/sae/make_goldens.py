"""Write the goldens: small SAEs of every architecture and normalisation, and SAELens' results on them.

    python tests/sae/make_goldens.py [FOLDER]        needs `pip install -e .[saelens]`

One file per architecture, `sae_<architecture>.safetensors`. Tensors: `x`, `weights.*` (SAELens' names), `indices`,
`values` and, for every case `<normalisation>.<b_dec or plain>[.rescale]`: `acts` = encode(x), `recon` = forward(x),
`folded` = encode(x) after fold_W_dec_norm(); and of the folded SAE with its error term kept, `clamp`, `min_clamp`,
`scale`, `ablate` = forward(x) with `hook_sae_acts_post` edited at `indices`, `add` = x + values·W_dec[indices].
"""

import itertools
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from sae_lens.registry import SAE_CLASS_REGISTRY
from safetensors.torch import save_file
from torch import Tensor

D_IN, D_OUT, D_SAE, K = 12, 10, 24, 6
ARCHITECTURES = (
    "standard",
    "jumprelu",
    "gated",
    "topk",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)
NORMALISATIONS = ("none", "layer_norm", "constant_norm_rescale")
INDICES = torch.tensor([3, 7, 11, 16, 20])
VALUES = torch.tensor([5.0, 0.0, -2.0, 9.0, 1.0])


def main(folder: Path) -> None:
    for seed, architecture in enumerate(ARCHITECTURES):
        torch.manual_seed(seed)
        save_file(golden(architecture), folder / f"sae_{architecture}.safetensors", versions())


def versions() -> dict[str, str]:
    return {package: version(package) for package in ("sae-lens", "transformer-lens", "torch")}


def golden(architecture: str) -> dict[str, Tensor]:
    """Every case of one architecture, with the same random weights."""
    x = torch.randn(2, 3, D_IN) * 4
    weights = random_weights(architecture)
    tensors = {"x": x, "indices": INDICES, "values": VALUES}
    tensors |= {f"weights.{name}": tensor for name, tensor in weights.items()}
    for name, settings in cases(architecture).items():
        results = compute(architecture, settings, weights, x)
        tensors |= {f"{name}.{key}": value.contiguous() for key, value in results.items()}
    return tensors


def random_weights(architecture: str) -> dict[str, Tensor]:
    parameters = build(architecture, {}).state_dict()
    random = {name: torch.randn_like(tensor) * scale(name) for name, tensor in parameters.items()}
    return random | ({"threshold": random["threshold"].abs()} if "threshold" in random else {})


def scale(name: str) -> float:
    return 0.3 if name.startswith("W_") else 0.5


def cases(architecture: str) -> dict[str, dict[str, Any]]:
    is_transcoder, is_topk = architecture.endswith("transcoder"), architecture == "topk"
    results = {}
    for normalisation, b_dec, rescale in itertools.product(NORMALISATIONS, (True, False), (True, False)):
        if (b_dec and is_transcoder) or (rescale and not is_topk):
            continue
        settings = {"normalize_activations": normalisation, "apply_b_dec_to_input": b_dec}
        name = f"{normalisation}.{'b_dec' if b_dec else 'plain'}{'.rescale' if rescale else ''}"
        results[name] = settings | ({"rescale_acts_by_decoder_norm": rescale} if is_topk else {})
    return results


def build(architecture: str, settings: dict[str, Any]) -> Any:
    sae_class, config_class = SAE_CLASS_REGISTRY[architecture]
    own: dict[str, Any] = {"apply_b_dec_to_input": False}
    own |= {"d_out": D_OUT} if architecture.endswith("transcoder") else {}
    own |= {"k": K} if architecture == "topk" else {}
    return sae_class(config_class(d_in=D_IN, d_sae=D_SAE, **(own | settings)))


@torch.no_grad()
def compute(architecture: str, settings: dict[str, Any], weights: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    sae = build(architecture, settings)
    sae.load_state_dict(weights)
    results = {"acts": sae.encode(x), "recon": sae(x)}
    if architecture == "topk" and not settings["rescale_acts_by_decoder_norm"]:
        return results  # SAELens cannot fold it
    sae.fold_W_dec_norm()
    results["folded"] = sae.encode(x)
    if architecture.endswith("transcoder") or architecture == "topk":
        return results
    sae(x)  # encode alone leaves the normalisation's scale set
    return results | steered(sae, x)


def steered(sae: Any, x: Tensor) -> dict[str, Tensor]:
    edits = {
        "clamp": lambda acts: VALUES.expand_as(acts),
        "min_clamp": lambda acts: torch.maximum(acts, VALUES),
        "scale": lambda acts: acts * VALUES,
        "ablate": torch.zeros_like,
    }
    results = {mode: with_edited_activations(sae, x, edit) for mode, edit in edits.items()}
    return results | {"add": x + VALUES @ sae.W_dec[INDICES]}


def with_edited_activations(sae: Any, x: Tensor, edit: Any) -> Tensor:
    def hook(acts: Tensor, hook: Any) -> Tensor:
        acts = acts.clone()
        acts[..., INDICES] = edit(acts[..., INDICES])
        return acts

    sae.use_error_term = True
    sae.add_hook("hook_sae_acts_post", hook)
    try:
        return sae(x)
    finally:
        sae.reset_hooks()
        sae.use_error_term = False


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # use_error_term without a model around it
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "goldens")
