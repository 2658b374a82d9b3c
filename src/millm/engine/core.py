"""The one thread that owns the device: drain the inbox, plan a step, run it, post what happened.

Knows nothing about text or HTTP. Everything it is told and everything it says is a message.

Attaching an SAE: read, check that it belongs here, calibrate, and only then put the tap in place.

What the engine runs on: told once, so that nobody else has to import torch to know.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import torch
from msgspec.structs import replace
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel

from millm.engine import logit_lens, out_of_memory
from millm.engine import model_loader as models
from millm.engine.attached_saes import AttachedSaes
from millm.engine.executor import ModelExecutor, SendEvents
from millm.engine.fault_injection import FaultInjector
from millm.engine.messages import (
    AttachSae,
    Cancel,
    Command,
    DetachSae,
    Done,
    Embed,
    EngineEvent,
    FeatureQuery,
    Generate,
    InjectFault,
    LoadModel,
    ModelLoaded,
    Progress,
    SaeAttached,
    SaeFacts,
    ScanFeatures,
    ScoreAnswer,
    SetActiveSteering,
    Started,
    UnloadModel,
)
from millm.engine.model_loader import OnProgress
from millm.engine.out_of_memory import failure_event
from millm.engine.runner_selection import choose_runner
from millm.engine.structured_output import GrammarVocabulary
from millm.engine.watchdog import Watchdog
from millm.errors import EngineFailed, InvalidSae, ModelNotLoaded, SaeMismatch, SaeModelMismatch
from millm.hardware import Platform
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


def platform_facts() -> Platform:
    return Platform(
        torch=str(torch.__version__),
        built_for=_built_for(),
        threads=torch.get_num_threads(),
        devices=tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())),
    )


def _built_for() -> str | None:
    if torch.version.cuda:
        return f"CUDA {torch.version.cuda}"
    return f"ROCm {torch.version.hip}" if torch.version.hip else None


@dataclass(frozen=True)
class StagedSae:
    """An SAE's files are prepared, or why they cannot be: said by a thread beside the loop."""

    command: AttachSae
    outcome: Path | Exception


CommandQueue = SimpleQueue[Sequence[Command | StagedSae]]


class LoadCancelled(Exception):
    """Whoever asked for the load does not want it any more."""


class EngineCore:
    def __init__(self, inbox: CommandQueue, send_events: SendEvents, watchdog: Watchdog) -> None:
        self._inbox = inbox
        self._send_events = send_events
        self._watchdog = watchdog
        self._fault_injector = FaultInjector()
        self._pending: deque[Command | StagedSae] = deque()
        """Out of the inbox, not yet obeyed."""
        self.executor = ModelExecutor(self._fault_injector, send_events)

    def run(self) -> None:
        """Never returns; the process ends when the API process does."""
        self._send_events([Started(platform=platform_facts())])
        while True:
            self.run_once()

    def run_once(self) -> None:
        """Everything that was said, then one step; waits only when there is nothing to do."""
        self._receive()
        with self._watchdog.step():
            self.executor.step()

    def _receive(self) -> None:
        """Everything that waits in the inbox; blocks only when there is nothing to generate."""
        if self.executor.scheduler.is_idle and not self._pending:
            self._pending.extend(self._inbox.get())
        self._drain_inbox()
        while self._pending:
            self._handle(self._pending.popleft())
            self._drain_inbox()

    def _drain_inbox(self) -> None:
        while not self._inbox.empty():
            self._pending.extend(self._inbox.get())

    def _handle(self, command: Command | StagedSae) -> None:
        match command:
            case Generate():
                self.executor.scheduler.add(command)
            case Embed() | ScoreAnswer() | ScanFeatures():
                self.executor.scheduler.add_text(command)
            case Cancel():
                self.executor.scheduler.cancel(command.id)
            case SetActiveSteering():
                self.executor.set_active_steering(command.steering)
            case _:
                self._handle_control(command)

    def _handle_control(
        self, command: LoadModel | UnloadModel | AttachSae | DetachSae | FeatureQuery | InjectFault | StagedSae
    ) -> None:
        match command:
            case LoadModel():
                self._reply(command.id, partial(self._load, command))
            case UnloadModel():
                self._reply(command.id, partial(self._unload, command))
            case AttachSae():
                self._stage_and_attach(command)
            case StagedSae():
                self._reply(command.command.id, partial(self._attach, command))
            case DetachSae():
                self._reply(command.id, partial(self._detach, command))
            case InjectFault():
                self._reply(command.id, partial(self._arm, command))
            case _:
                self._reply(
                    command.id,
                    partial(logit_lens.answer_query, self.executor.model, self.executor.attached_saes, command),
                )

    def _reply(self, command_id: str, compute_event: Callable[[], EngineEvent]) -> None:
        """The edge where a command's failure becomes its answer; what was there before goes on serving."""
        try:
            return self._send_events([compute_event()])
        except Exception as error:  # noqa: BLE001  the loop outlives any command
            answer = failure_event(command_id, error)
        out_of_memory.collect_garbage(self.executor.device)  # now that the error, and all that its trace held, is gone
        return self._send_events([answer])

    # -------------------------------------------------------------------------------------------------- the model

    def _load(self, command: LoadModel) -> EngineEvent:
        if command.cpu_threads:
            torch.set_num_threads(command.cpu_threads)
        if command.unload_first:
            self._release_model("the model was unloaded to make room for another")
        self._fault_injector.fail_if_armed("load")
        try:
            model = models.load_model(command, self._progress(command.id))
            taps = AttachedSaes(frozenset(command.special_ids))
            verdict = choose_runner(model, command, taps.steer_mask, taps.active_hooks)
            models.pack_int8(
                model, command, self._progress(command.id)
            )  # after the test, which compares the last digits
        except LoadCancelled as error:
            raise ModelNotLoaded("loading was given up") from error
        facts = models.model_facts(model, verdict, command)
        self._release_model("the model was replaced while this request ran")
        vocabulary = GrammarVocabulary(Path(command.path), facts.vocab_size, facts.stop_ids, command.special_ids)
        self.executor = ModelExecutor(
            self._fault_injector,
            self._send_events,
            model,
            verdict.runner,
            taps,
            vocabulary,
            verdict.scheduler(),
            device=model.device,
            max_text_tokens=facts.context_length,
            load_id=command.id,
        )
        self._fault_injector.install_hook(model)
        return ModelLoaded(id=command.id, facts=replace(facts, memory=out_of_memory.memory_use(model, verdict.runner)))

    def _unload(self, command: UnloadModel) -> EngineEvent:
        self._release_model("the model was unloaded while this request ran")
        return Done(id=command.id)

    def _release_model(self, reason: str) -> None:
        """Of the model and all that belongs to it; its memory is free then."""
        device = self.executor.device
        self.executor.stop(reason)
        self.executor = ModelExecutor(self._fault_injector, self._send_events, device=device)
        out_of_memory.collect_garbage(device)

    # --------------------------------------------------------------------------------------------------- its SAEs

    def _stage_and_attach(self, command: AttachSae) -> None:
        """Beside the loop while there are answers to give, so that they go on."""
        if self.executor.scheduler.is_idle:
            self._reply(command.id, lambda: self._attach(_stage_or_error(command)))
        else:
            Thread(
                target=lambda: self._inbox.put([_stage_or_error(command)]), name="millm-staging", daemon=True
            ).start()

    def _attach(self, staged: StagedSae) -> EngineEvent:
        command = staged.command
        if isinstance(staged.outcome, Exception):
            raise staged.outcome
        if self.executor.model is None:
            raise ModelNotLoaded("no model is loaded; load one before attaching an SAE")
        self._fault_injector.fail_if_armed("attach")
        facts = attach_sae(
            self.executor.model, self.executor.attached_saes, command, staged.outcome, self._progress(command.id)
        )
        self.executor.on_attachments_changed()
        return SaeAttached(id=command.id, facts=facts)

    def _detach(self, command: DetachSae) -> EngineEvent:
        self.executor.attached_saes.detach(command.sae)
        self.executor.on_attachments_changed()
        return Done(id=command.id)

    def _arm(self, fault: InjectFault) -> EngineEvent:
        self._fault_injector.arm(fault)
        return Done(id=fault.id)

    def _progress(self, command_id: str) -> models.OnProgress:
        def report(stage: str, done: int, total: int) -> None:
            self._send_events([Progress(id=command_id, stage=stage, done=done, total=total)])
            self._drain_inbox()
            if Cancel(id=command_id) in self._pending:
                raise LoadCancelled

        return report


def _stage_or_error(command: AttachSae) -> StagedSae:
    """The edge of its thread: whatever goes wrong is the command's answer."""
    try:
        return StagedSae(command, stage_sae(command))
    except Exception as error:  # noqa: BLE001  as above
        return StagedSae(command, error)
