"""Write SAELens' results on other libraries' SAEs, through its own loaders, from a cache on disk.

    python -m tests.sae.make_foreign_goldens [FILE]        needs `pip install -e .[saelens]`

For every SAE of `tests/fixtures/foreign_saes.py`: `acts` = encode(x) and `recon` = forward(x).
"""

import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

os.environ["HF_HUB_CACHE"] = tempfile.mkdtemp()
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from sae_lens import SAE
from sae_lens.loading.pretrained_sae_loaders import NAMED_PRETRAINED_SAE_LOADERS as LOADERS
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from safetensors.torch import save_file
from torch import Tensor

from tests.fixtures.foreign_saes import SAES, ForeignSae, inputs, write

FILE = Path(__file__).parent / "goldens" / "foreign.safetensors"
COMMIT = "0" * 40


def main(file: Path) -> None:
    found = {}
    for name, sae in SAES.items():
        write(sae, cached(sae.repository))
        found |= {f"{name}.{key}": tensor.contiguous() for key, tensor in results(sae).items()}
    save_file(found, file)


def cached(repository: str) -> Path:
    """The folder of a snapshot in the cache that `huggingface_hub` looks into."""
    home = Path(os.environ["HF_HUB_CACHE"]) / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(COMMIT)
    return home / "snapshots" / COMMIT


@torch.no_grad()
def results(published: ForeignSae) -> dict[str, Tensor]:
    sae = loaded(published)
    x = inputs()
    if sae.cfg.reshape_activations == "hook_z":
        x = x.unflatten(-1, (3, -1))
    recon = sae(x)
    return {"acts": sae.encode(x), "recon": recon.flatten(-2) if recon.ndim == 4 else recon}


def loaded(published: ForeignSae) -> Any:
    def converter(*arguments: Any, **_: Any) -> Any:
        return LOADERS[published.loader](
            published.repository, published.path, device="cpu", cfg_overrides=dict(published.overrides) or None
        )

    sae = SAE.from_pretrained(published.repository, published.path, device="cpu", converter=converter)
    if sae.cfg.normalize_activations == "expected_average_only_in":
        sae.fold_activation_norm_scaling_factor(scale(published))
    return sae


def scale(published: ForeignSae) -> float:
    """The catalogue's for a real name; of ours the one that Llama Scope's files give."""
    if published.loader == "llama_scope":
        return float(12**0.5 / 1.7)
    for release in get_pretrained_saes_directory().values():
        for sae_id, path in release.saes_map.items():
            if (release.repo_id, path) == (published.repository, published.path):
                return release.norm_scaling_factor[sae_id]
    raise KeyError(published.name)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE)
