"""Attaching an SAE: read, check that it belongs here, calibrate, and only then put the tap in place."""

from pathlib import Path

import torch
from msgspec.structs import replace
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel

from millm.engine.messages import AttachSae, SaeFacts
from millm.engine.model import OnProgress
from millm.engine.taps import AttachedSaes
from millm.errors import EngineFailed, InvalidSae, SaeMismatch, SaeModelMismatch
from millm.sae import calibration as governor
from millm.sae import hooks
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.base_models import model_mismatch
from millm.sae.calibration import SaeCalibration, calibrate
from millm.sae.formats import canonicalise
from millm.sae.hook_points import is_known_family
from millm.sae.hooks import HookPoint
from millm.sae.steering_hook import SteeringHook

_PROGRESS_STAGE = "attaching the SAE"


def stage_sae(command: AttachSae) -> Path:
    """The SAE's memory-mapped copy, made where there is none yet: the slow part, which needs no device.

    Raises InvalidSae, or EngineFailed where it cannot be written.
    """
    try:
        return canonicalise(Path(command.path), Path(command.canonical_root))
    except (OSError, SafetensorError) as error:  # what cannot be read is InvalidSae by now
        reason = error.strerror if isinstance(error, OSError) else "is its disk full?"
        raise EngineFailed(f"the SAE's copy cannot be written in MILLM_HOME ({reason})") from error


def attach_sae(
    model: PreTrainedModel, attached_saes: AttachedSaes, command: AttachSae, folder: Path, on_progress: OnProgress
) -> SaeFacts:
    """`folder`: as `stage` made it. Raises InvalidSae or SaeMismatch, and then nothing has changed."""
    on_progress(_PROGRESS_STAGE, 0, 3)
    check_encoder_supported(model)
    sae = open_sae(folder, model)
    point = sae_hook_point(model, sae, command.hook_point)
    attached_saes.check_free(command.sae, point, command.replaces)
    attached_saes.prepare_unsteered()
    check_width(model, sae, point)
    _check_model_name(sae, command)
    on_progress(_PROGRESS_STAGE, 1, 3)
    x, target = capture_calibration(model, sae, point, command.calibration_ids)
    calibration = calibrate(sae, x, target)
    sample_every = governor.measure_sample_every(model, sae, command.calibration_ids[0], x)
    on_progress(_PROGRESS_STAGE, 2, 3)
    # Opened again: calibrating read all of it, the tap needs a few rows.
    tap = SteeringHook(open_sae(folder, model), model.device, sample_every)
    facts = _sae_facts(sae, point, calibration, tap, command)
    attached_saes.attach(tap, point, facts, command.replaces)
    on_progress(_PROGRESS_STAGE, 3, 3)
    return facts


def check_encoder_supported(model: PreTrainedModel) -> None:
    """What an encoder's layers give out is normalised or not, family by family: none has been checked."""
    if not model.can_generate() and not is_known_family(model.config.get_text_config(decoder=True)):
        raise SaeMismatch(
            f"{model.config.model_type} models only embed, and no hook points of them are known;"
            " attach an SAE to a model that generates"
        )


def open_sae(folder: Path, model: PreTrainedModel) -> SparseAutoencoder:
    """TransformerLens centres what LayerNorm models write to the residual stream, and leaves RMSNorm models alone."""
    sae = SparseAutoencoder.open(folder)
    if not any(isinstance(module, nn.LayerNorm) for module in model.modules()):
        sae.config = replace(sae.config, center_inputs=False)
    return sae


def sae_hook_point(model: PreTrainedModel, sae: SparseAutoencoder, override: str | None) -> HookPoint:
    name = override or sae.config.hf_hook_name or sae.config.hook_name
    if name is None:
        raise InvalidSae("this SAE does not say where it belongs; name the hook point, e.g. blocks.12.hook_resid_post")
    return hooks.resolve_hook_point(model, name)


def _check_model_name(sae: SparseAutoencoder, command: AttachSae) -> None:
    """The width decides what can be; the name, what was meant."""
    mismatch = model_mismatch(sae.config.model_name, command.model_name)
    if mismatch and not command.allow_model_mismatch:
        raise SaeModelMismatch(f"{mismatch}; `allow_model_mismatch` attaches it all the same")


def check_width(model: PreTrainedModel, sae: SparseAutoencoder, point: HookPoint) -> None:
    width = hooks.width_at(model, point)
    if width != sae.config.d_in:
        raise SaeMismatch(f"this SAE expects width {sae.config.d_in}, but {point.name} of this model has {width}")


def capture_calibration(
    model: PreTrainedModel, sae: SparseAutoencoder, point: HookPoint, texts: tuple[tuple[int, ...], ...]
) -> tuple[Tensor, Tensor]:
    """What the SAE reads [N, d_in] and should give back [N, d_out] over the calibration texts.

    Their position 0, the attention sink, is left out.
    """
    x, target = [], []  # each [T - 1, width]
    out = _output_point(model, sae, point)
    for ids in texts:
        captured = hooks.capture(model, [point, out], list(ids))
        x.append(captured[point.name][1:])
        target.append(captured[out.name][1:])
    return torch.cat(x), torch.cat(target)


def _output_point(model: PreTrainedModel, sae: SparseAutoencoder, point: HookPoint) -> HookPoint:
    """Where the SAE's output belongs: the same point, save for transcoders."""
    return hooks.resolve_hook_point(model, sae.config.hook_name_out) if sae.config.hook_name_out else point


def _sae_facts(
    sae: SparseAutoencoder, point: HookPoint, calibration: SaeCalibration, hook: SteeringHook, command: AttachSae
) -> SaeFacts:
    mismatch = model_mismatch(sae.config.model_name, command.model_name)
    return SaeFacts(
        id=command.id,
        sae=command.sae,
        architecture=sae.config.architecture,
        layer=point.layer,
        hook_point=point.name,
        features=sae.config.d_sae,
        steerable=sae.config.steerable,
        exclude_special_tokens=sae.config.exclude_special_tokens,
        residual_norm=calibration.residual_norm,
        variance_explained=calibration.variance_explained,
        l0=calibration.l0,
        warnings=(*((mismatch,) if mismatch else ()), *calibration.warnings),
        sha256=sae.sha256,
        memory=hook.memory,
        sample_every=hook.sample_every,
    )
