"""SAELens: `cfg.json` and `sae_weights.safetensors`, of any version, and what miStudio exports like it."""

from pathlib import Path

from torch import Tensor

from millm.sae.config import Architecture, SaeConfig
from millm.sae.formats import mistudio, saelens_config
from millm.sae.formats.canonical import check_tensors
from millm.sae.formats.folding import fold_decoder_norms, fold_input_scale
from millm.sae.formats.known import apply_repository_normalisation, is_centred_repository
from millm.sae.formats.saelens_config import BATCH_TOPK, SAELENS_CONFIG, SaelensConfig
from millm.sae.formats.source import (
    SourceSae,
    drop_unit_scaling,
    dtype_name,
    matrix_shape,
    read_json_object,
    read_safetensors,
    sha256_of,
)

SAELENS_WEIGHTS = "sae_weights.safetensors"


def read_saelens(folder: Path) -> SourceSae:
    """Raises InvalidSae when the folder is not an SAE whose arithmetic we do exactly."""
    raw = read_json_object(folder / SAELENS_CONFIG)
    is_export = mistudio.is_mistudio_export(raw)
    cfg = apply_repository_normalisation(
        saelens_config.parse_saelens_config(mistudio.to_saelens_config(raw, folder) if is_export else raw), folder
    )
    stored = drop_unit_scaling(read_safetensors(folder / SAELENS_WEIGHTS))
    is_checkpoint = cfg.architecture in BATCH_TOPK and "topk_threshold" in stored and "threshold" not in stored
    if is_checkpoint:
        stored["threshold"] = stored.pop("topk_threshold").float()
    tensors = _expand_threshold(_transpose_encoder(stored))
    config = _sae_config(cfg, tensors, folder, "mistudio" if is_export else cfg.converted_from)
    check_tensors(config, tensors)
    source = SourceSae(config, tensors, sha256_of(folder / SAELENS_WEIGHTS))
    return _fold_into_weights(source, cfg, is_checkpoint=is_checkpoint)


def _sae_config(cfg: SaelensConfig, tensors: dict[str, Tensor], folder: Path, source_format: str) -> SaeConfig:
    architecture = saelens_config.inference_architecture(cfg)
    is_topk, is_transcoder = architecture == "topk", architecture.endswith("transcoder")
    use = cfg.merged_metadata
    return SaeConfig(
        architecture=architecture,
        d_in=cfg.d_in,
        d_sae=cfg.d_sae,
        d_out=matrix_shape(tensors, "W_dec")[1] if is_transcoder else cfg.d_in,
        normalize_activations=saelens_config.runtime_normalisation(cfg),
        apply_b_dec_to_input=_subtracts_b_dec(cfg, architecture),
        center_inputs=_has_centred_inputs(cfg, folder),
        k=saelens_config.parse_k(cfg) if is_topk else None,
        rescale_acts_by_decoder_norm=is_topk and bool(cfg.rescale_acts_by_decoder_norm),
        model_name=use.model_name,
        hook_name=use.hook_name,
        hf_hook_name=use.hf_hook_name,
        hook_name_out=use.hook_name_out,
        exclude_special_tokens=bool(use.exclude_special_tokens),
        source_format=source_format,
        dtype=dtype_name(tensors["W_enc_T"]),
    )


def _subtracts_b_dec(cfg: SaelensConfig, architecture: Architecture) -> bool:
    if cfg.apply_b_dec_to_input is None:
        return not architecture.endswith("transcoder")
    return cfg.apply_b_dec_to_input


def _has_centred_inputs(cfg: SaelensConfig, folder: Path) -> bool:
    kwargs = cfg.merged_metadata.model_from_pretrained_kwargs
    return (kwargs is not None and kwargs.center_writing_weights) or is_centred_repository(folder)


def _transpose_encoder(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    matrix_shape(stored, "W_enc")
    rest = {name: tensor for name, tensor in stored.items() if name != "W_enc"}
    return rest | {"W_enc_T": stored["W_enc"].T}


def _expand_threshold(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """One threshold for all features, as BatchTopK has it, becomes one for each."""
    threshold = tensors.get("threshold")
    if threshold is None or threshold.numel() != 1:
        return tensors
    return tensors | {"threshold": threshold.reshape(1).expand(len(tensors["W_enc_T"]))}


def _fold_into_weights(source: SourceSae, cfg: SaelensConfig, *, is_checkpoint: bool) -> SourceSae:
    """A BatchTopK checkpoint of a training run ranks by decoder norm unless it says otherwise."""
    rescales = cfg.rescale_acts_by_decoder_norm
    if cfg.architecture in BATCH_TOPK and (is_checkpoint if rescales is None else rescales):
        source = fold_decoder_norms(source)
    return (
        fold_input_scale(source, saelens_config.require_input_scale(cfg))
        if saelens_config.has_input_scale(cfg)
        else source
    )
