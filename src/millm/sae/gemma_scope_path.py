"""Where a Gemma Scope SAE reads, told from its path: its files do not say. Knows no tensor.

What a path like `gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82` does not say is left unknown.
"""

import re
from dataclasses import dataclass

_REPOSITORY = re.compile(r"gemma-scope-(?P<size>\d+b)-(?P<tuning>pt|it)-(?P<site>res|mlp|att|transcoders)\b")
_LAYER_IN_PATH = re.compile(r"/layer_(\d+)(?:/|$)")
_HOOK_BY_SITE = {
    "res": "hook_resid_post",
    "mlp": "hook_mlp_out",
    "att": "attn.hook_z",
    "transcoders": "ln2.hook_normalized",
}


@dataclass(frozen=True)
class GemmaScopePath:
    """What the path says."""

    model_name: str | None = None
    hook_name: str | None = None
    hook_name_out: str | None = None
    is_transcoder: bool = False
    is_embedding: bool = False


def parse_gemma_scope_path(path: str) -> GemmaScopePath:
    repository, layer = _REPOSITORY.search(path), _LAYER_IN_PATH.search(path)
    if repository is None:
        return GemmaScopePath()
    site = repository["site"]
    model_name = f"google/gemma-2-{repository['size']}" + ("-it" if repository["tuning"] == "it" else "")
    if site == "res" and "/embedding" in path:
        return GemmaScopePath(model_name, "hook_embed", is_embedding=True)
    return GemmaScopePath(
        model_name=model_name,
        hook_name=f"blocks.{layer[1]}.{_HOOK_BY_SITE[site]}" if layer else None,
        hook_name_out=f"blocks.{layer[1]}.hook_mlp_out" if layer and site == "transcoders" else None,
        is_transcoder=site == "transcoders",
    )
