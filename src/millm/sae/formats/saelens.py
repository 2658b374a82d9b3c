"""Read SAELens' `cfg.json` and `sae_weights.safetensors`, of any version, and miStudio's exports in that layout.

Defaults are SAELens' own (`handle_pre_6_0_config`), except where SAELens would guess: a missing k, an unused scale and
an unknown architecture are rejected.
"""

from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
from torch import Tensor

from millm.errors import InvalidSae
from millm.sae.config import Architecture, Normalisation, SaeConfig, Width, require_architecture, require_normalisation
from millm.sae.formats import mistudio, reader
from millm.sae.formats.canonical import check_tensors, fold_decoder_norms, fold_input_scale
from millm.sae.formats.reader import SourceSae

SAELENS_CONFIG = "cfg.json"
SAELENS_WEIGHTS = "sae_weights.safetensors"
BATCH_TOPK = ("batchtopk", "matryoshka_batchtopk")
_NEW_FIELD_NAMES = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
_COMPATIBLE_ARCHITECTURES: dict[str, tuple[str, ...]] = {
    "relu": get_args(Architecture),
    "topk": ("topk",),
    "jumprelu": ("jumprelu", "jumprelu_transcoder", "jumprelu_skip_transcoder"),
}
"""Architectures that go with an activation function of the flat configurations."""
_CENTRED_REPOSITORIES = {
    "GPT2-Small-SAEs-Reformatted",
    "GPT2-Small-Feature-Splitting-Experiment-Layer-8",
    "gpt2-small-mlp-out-saes",
}
"""Trained on residuals without their mean, according to SAELens' catalogue (`pretrained_saes.yaml`), as below."""
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
"""By the SAE's folder: the factor of its activations in training."""


class _ActivationKwargs(msgspec.Struct, frozen=True):
    k: int | float | None = None


class _ModelKwargs(msgspec.Struct, frozen=True):
    center_writing_weights: bool = False


class SaelensMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """The model and hook of an SAE."""

    model_name: str | None = None
    hook_name: str | None = None
    hf_hook_name: str | None = None
    hook_name_out: str | None = None
    hook_head_index: int | None = None
    exclude_special_tokens: bool | list[int] | None = None
    model_from_pretrained_kwargs: _ModelKwargs | None = None


class SaelensConfig(SaelensMetadata, frozen=True, kw_only=True):
    """`cfg.json` with the names of version 6, without the fields that are not used here."""

    d_in: Width
    d_sae: Width
    architecture: str = "standard"
    activation_fn: str = "relu"
    activation_fn_kwargs: _ActivationKwargs | None = None
    k: int | float | None = None
    rescale_acts_by_decoder_norm: bool | None = None
    apply_b_dec_to_input: bool | None = None
    normalize_activations: str | bool | None = None
    reshape_activations: Literal["none", "hook_z"] | None = None
    scaling_factor: float | None = None
    norm_scaling_factor: float | None = None
    metadata: SaelensMetadata = SaelensMetadata()
    converted_from: str = "saelens"
    """The source format, for files written by `millm.sae.conversion.process`."""

    @property
    def merged_metadata(self) -> SaelensMetadata:
        """The metadata; fields missing under `metadata` are those of the top level."""
        nested = msgspec.structs.asdict(self.metadata)
        return SaelensMetadata(
            **{name: getattr(self, name) if value is None else value for name, value in nested.items()}
        )


def read_saelens(folder: Path) -> SourceSae:
    """Raises InvalidSae when the folder is not an SAE that is supported exactly."""
    raw = reader.read_json_object(folder / SAELENS_CONFIG)
    is_export = mistudio.is_mistudio_export(raw)
    cfg = apply_repository_normalisation(
        parse_saelens_config(mistudio.to_saelens_config(raw, folder) if is_export else raw), folder
    )
    stored = reader.drop_unit_scaling(reader.read_safetensors(folder / SAELENS_WEIGHTS))
    is_checkpoint = cfg.architecture in BATCH_TOPK and "topk_threshold" in stored and "threshold" not in stored
    if is_checkpoint:
        stored["threshold"] = stored.pop("topk_threshold").float()
    reader.matrix_shape(stored, "W_enc")
    stored["W_enc_T"] = stored.pop("W_enc").T
    tensors = _expand_threshold(stored)
    config = _sae_config(cfg, tensors, folder, "mistudio" if is_export else cfg.converted_from)
    check_tensors(config, tensors)
    source = SourceSae(config, tensors, reader.sha256_of(folder / SAELENS_WEIGHTS))
    return _fold_into_weights(source, cfg, is_checkpoint=is_checkpoint)


def _sae_config(cfg: SaelensConfig, tensors: dict[str, Tensor], folder: Path, source_format: str) -> SaeConfig:
    architecture = inference_architecture(cfg)
    is_topk, is_transcoder = architecture == "topk", architecture.endswith("transcoder")
    metadata = cfg.merged_metadata
    return SaeConfig(
        architecture=architecture,
        d_in=cfg.d_in,
        d_sae=cfg.d_sae,
        d_out=reader.matrix_shape(tensors, "W_dec")[1] if is_transcoder else cfg.d_in,
        normalize_activations=runtime_normalisation(cfg),
        apply_b_dec_to_input=not is_transcoder if cfg.apply_b_dec_to_input is None else cfg.apply_b_dec_to_input,
        center_inputs=_has_centred_inputs(metadata, folder),
        k=parse_k(cfg) if is_topk else None,
        rescale_acts_by_decoder_norm=is_topk and bool(cfg.rescale_acts_by_decoder_norm),
        model_name=metadata.model_name,
        hook_name=metadata.hook_name,
        hf_hook_name=metadata.hf_hook_name,
        hook_name_out=metadata.hook_name_out,
        exclude_special_tokens=bool(metadata.exclude_special_tokens),
        source_format=source_format,
        dtype=reader.dtype_name(tensors["W_enc_T"]),
    )


def _has_centred_inputs(metadata: SaelensMetadata, folder: Path) -> bool:
    kwargs = metadata.model_from_pretrained_kwargs
    is_configured = kwargs is not None and kwargs.center_writing_weights
    return is_configured or bool(_repository_names(folder) & _CENTRED_REPOSITORIES)


def _expand_threshold(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Expand BatchTopK's single threshold to one per feature."""
    threshold = tensors.get("threshold")
    if threshold is None or threshold.numel() != 1:
        return tensors
    return tensors | {"threshold": threshold.reshape(1).expand(len(tensors["W_enc_T"]))}


def _fold_into_weights(source: SourceSae, cfg: SaelensConfig, *, is_checkpoint: bool) -> SourceSae:
    """A BatchTopK checkpoint of a training run ranks by decoder norm by default."""
    rescales = cfg.rescale_acts_by_decoder_norm
    if cfg.architecture in BATCH_TOPK and (is_checkpoint if rescales is None else rescales):
        source = fold_decoder_norms(source)
    return fold_input_scale(source, require_input_scale(cfg)) if has_input_scale(cfg) else source


def parse_saelens_config(raw: dict[str, Any]) -> SaelensConfig:
    """Raises InvalidSae naming a field of the wrong type."""
    cfg = reader.convert_to_struct(
        {_NEW_FIELD_NAMES.get(name, name): value for name, value in raw.items()}, SaelensConfig, SAELENS_CONFIG
    )
    head = cfg.merged_metadata.hook_head_index
    if head is not None:
        raise InvalidSae(f"{SAELENS_CONFIG}: hook_head_index {head}: SAEs of a single head are not supported")
    return cfg


def inference_architecture(cfg: SaelensConfig) -> Architecture:
    """The architecture of the weights at inference. Raises InvalidSae when unknown or incompatible with the activation
    function.
    """
    name = "jumprelu" if cfg.architecture in BATCH_TOPK else cfg.architecture
    if cfg.activation_fn == "topk" and name == "standard":
        name = "topk"
    known = require_architecture(name)
    if known not in _COMPATIBLE_ARCHITECTURES.get(cfg.activation_fn, ()):
        raise InvalidSae(
            f"{SAELENS_CONFIG}: activation function {cfg.activation_fn!r} does not go with {cfg.architecture!r}"
        )
    return known


def parse_k(cfg: SaelensConfig) -> int | None:
    """The number of active features of a topk SAE. Raises InvalidSae when it is not an integer."""
    kwargs = cfg.activation_fn_kwargs
    k = kwargs.k if kwargs is not None and kwargs.k is not None else cfg.k
    if k is not None and k != int(k):
        raise InvalidSae(f"{SAELENS_CONFIG}: k is {k}; it must be an integer")
    return None if k is None else int(k)


def has_input_scale(cfg: SaelensConfig) -> bool:
    """Whether the SAE was trained on inputs scaled by one constant, which SAELens does not apply at run time."""
    return cfg.normalize_activations in (True, "expected_average_only_in")


def require_input_scale(cfg: SaelensConfig) -> float:
    """The constant factor of the inputs. Raises InvalidSae when unknown."""
    scale = cfg.scaling_factor if cfg.norm_scaling_factor is None else cfg.norm_scaling_factor
    if scale is None or scale <= 0:
        raise InvalidSae(
            f"{SAELENS_CONFIG}: normalize_activations expected_average_only_in needs a positive scaling_factor: "
            "without it activations would be wrong, so fold it into the weights or add it"
        )
    return scale


def runtime_normalisation(cfg: SaelensConfig) -> Normalisation:
    """The normalisation that is not folded into the weights."""
    if has_input_scale(cfg) or not isinstance(cfg.normalize_activations, str):
        return "none"
    return require_normalisation(cfg.normalize_activations)


def apply_repository_normalisation(cfg: SaelensConfig, folder: Path) -> SaelensConfig:
    """Add the normalisation of known repositories, which their own files lack."""
    names = _repository_names(folder)
    for name in names & REPOSITORY_NORMALISATIONS.keys():
        cfg = msgspec.structs.replace(cfg, normalize_activations=REPOSITORY_NORMALISATIONS[name])
    for name in names & REPOSITORY_INPUT_SCALES.keys():
        scale = REPOSITORY_INPUT_SCALES[name].get(folder.name)
        if has_input_scale(cfg) and cfg.norm_scaling_factor is None and scale is not None:
            cfg = msgspec.structs.replace(cfg, norm_scaling_factor=scale)
    return cfg


def _repository_names(folder: Path) -> set[str]:
    """Of all folders above, because the SAE may be in a cache or in a copy."""
    return {part.rpartition("--")[2] for part in folder.absolute().parts}  # in a cache: models--owner--name
