"""What SAELens' catalogue (`pretrained_saes.yaml`) says of some repositories, and their own files do not.

Repositories go by their names; a folder of a cache or a copy is recognised by any folder above it.
"""

from pathlib import Path

import msgspec

from millm.sae.formats.saelens_config import SaelensConfig, has_input_scale

_CENTRED_REPOSITORIES = {
    "GPT2-Small-SAEs-Reformatted",
    "GPT2-Small-Feature-Splitting-Experiment-Layer-8",
    "gpt2-small-mlp-out-saes",
}
"""Trained on residuals without their mean."""

REPOSITORY_NORMALISATIONS = {"Mistral-7B-Residual-Stream-SAEs": "constant_norm_rescale"}

REPOSITORY_INPUT_SCALES = {
    "Gemma-2b-Residual-Stream-SAEs": {"gemma_2b_blocks.12.hook_resid_post_16384": 0.21381938399317255},
    "gpt2-small-mlp-out-saes": {
        "sae_group_gpt2_blocks.0.hook_mlp_out_24576:v1": 1.049317316132615,
        "sae_group_gpt2_blocks.1.hook_mlp_out_24576:v0": 2.3693984005104283,
        "sae_group_gpt2_blocks.2.hook_mlp_out_24576:v0": 1.6411934982190302,
        "sae_group_gpt2_blocks.3.hook_mlp_out_24576:v0": 1.8958522157897557,
        "sae_group_gpt2_blocks.4.hook_mlp_out_24576:v0": 1.81673478700627,
        "sae_group_gpt2_blocks.5.hook_mlp_out_24576:v0": 1.550234472245924,
        "sae_group_gpt2_blocks.6.hook_mlp_out_24576:v0": 1.3237742807210804,
        "sae_group_gpt2_blocks.7.hook_mlp_out_24576:v0": 1.1042905114723296,
        "sae_group_gpt2_blocks.8.hook_mlp_out_24576:v1": 0.9123762783479742,
        "sae_group_gpt2_blocks.9.hook_mlp_out_24576:v0": 0.6955335635232373,
        "sae_group_gpt2_blocks.10.hook_mlp_out_24576:v0": 0.3619728926727644,
        "sae_group_gpt2_blocks.11.hook_mlp_out_24576:v2": 0.2851548652550073,
    },
}
"""By the SAE's folder: what its activations were multiplied by in training."""


def apply_repository_normalisation(cfg: SaelensConfig, folder: Path) -> SaelensConfig:
    """With the normalisation that its repository is known to need."""
    names = _repository_names(folder)
    for name in names & REPOSITORY_NORMALISATIONS.keys():
        cfg = msgspec.structs.replace(cfg, normalize_activations=REPOSITORY_NORMALISATIONS[name])
    for name in names & REPOSITORY_INPUT_SCALES.keys():
        scale = REPOSITORY_INPUT_SCALES[name].get(folder.name)
        if has_input_scale(cfg) and cfg.norm_scaling_factor is None and scale is not None:
            cfg = msgspec.structs.replace(cfg, norm_scaling_factor=scale)
    return cfg


def is_centred_repository(folder: Path) -> bool:
    return bool(_repository_names(folder) & _CENTRED_REPOSITORIES)


def _repository_names(folder: Path) -> set[str]:
    return {part.rpartition("--")[2] for part in folder.absolute().parts}  # in a cache: models--owner--name
