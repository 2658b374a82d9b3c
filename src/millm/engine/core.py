"""The engine's loop, on the one thread that owns the device: handle commands, run a step, send events."""

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

from millm.engine import logit_lens, model_loader, out_of_memory
from millm.engine.attached_saes import AttachedSaes
from millm.engine.executor import ModelExecutor, SendEvents
from millm.engine.failures import failure_event
from millm.engine.fault_injection import FaultInjector
from millm.engine.messages import (
    AttachSae,
    Cancel,
    Command,
    ControlCommand,
    DetachSae,
    Done,
    Embed,
    EngineEvent,
    Generate,
    InjectFault,
    LoadModel,
    ModelLoaded,
    Progress,
    ReportProgress,
    SaeAttached,
    SaeFacts,
    ScanFeatures,
    ScoreAnswer,
    SetActiveSteering,
    Started,
    UnloadModel,
)
from millm.engine.runner_selection import choose_runner
from millm.engine.structured_output import GrammarVocabulary
from millm.engine.watchdog import Watchdog
from millm.errors import EngineFailed, InvalidSae, ModelNotLoaded, SaeMismatch, SaeModelMismatch
from millm.hardware import Platform
from millm.sae import hooks
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.base_models import model_mismatch
from millm.sae.calibration import SaeCalibration, calibrate, measure_sample_every
from millm.sae.formats import canonicalise
from millm.sae.hook_points import is_known_family
from millm.sae.hooks import HookPoint
from millm.sae.steering_hook import SteeringHook

_PROGRESS_STAGE = "attaching the SAE"


@dataclass(frozen=True)
class StagedSae:
    """Result of `stage_sae`, sent to the loop by a background thread."""

    command: AttachSae
    outcome: Path | Exception


CommandQueue = SimpleQueue[Sequence[Command | StagedSae]]


class LoadCancelled(Exception):
    """The load was cancelled by a `Cancel`."""


class EngineCore:
    def __init__(self, inbox: CommandQueue, send_events: SendEvents, watchdog: Watchdog) -> None:
        self._inbox = inbox
        self._send_events = send_events
        self._watchdog = watchdog
        self._fault_injector = FaultInjector()
        self._pending: deque[Command | StagedSae] = deque()  # Commands out of the inbox, not yet handled
        self.executor = ModelExecutor(self._fault_injector, send_events)

    def run(self) -> None:
        """Never returns."""
        self._send_events([Started(platform=platform_facts())])
        while True:
            self.run_once()

    def run_once(self) -> None:
        """Handle all commands, then run one step; blocks only when idle."""
        self._receive()
        with self._watchdog.step():
            self.executor.step()

    def _receive(self) -> None:
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

    def _handle_control(self, command: ControlCommand | StagedSae) -> None:
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
                model, attached_saes = self.executor.model, self.executor.attached_saes
                self._reply(command.id, partial(logit_lens.answer_query, model, attached_saes, command))

    def _reply(self, command_id: str, compute_event: Callable[[], EngineEvent]) -> None:
        """Send the event, or `CommandFailed` for what `compute_event` raises."""
        try:
            return self._send_events([compute_event()])
        except Exception as error:  # noqa: BLE001  the loop outlives any command
            failure = failure_event(command_id, error)
        out_of_memory.collect_garbage(self.executor.device)  # the error's trace no longer holds tensors
        return self._send_events([failure])

    def _load(self, command: LoadModel) -> EngineEvent:
        if command.cpu_threads:
            torch.set_num_threads(command.cpu_threads)
        if command.unload_first:
            self._release_model("the model was unloaded to make room for another")
        self._fault_injector.fail_if_armed("load")
        try:
            model = model_loader.load_model(command, self._progress(command.id))
            attached_saes = AttachedSaes(frozenset(command.special_ids))
            choice = choose_runner(model, command, attached_saes.steer_mask, attached_saes.active_hooks)
            # after the self-test, which compares the last digits
            model_loader.pack_int8(model, command, self._progress(command.id))
        except LoadCancelled as error:
            raise ModelNotLoaded("loading was given up") from error
        facts = model_loader.model_facts(model, choice, command)
        self._release_model("the model was replaced while this request ran")
        self.executor = ModelExecutor(
            self._fault_injector,
            self._send_events,
            model,
            choice.runner,
            attached_saes,
            GrammarVocabulary(Path(command.path), facts.vocab_size, facts.stop_ids, command.special_ids),
            choice.scheduler(),
            device=model.device,
            max_text_tokens=facts.context_length,
            load_id=command.id,
        )
        self._fault_injector.install_hook(model)
        return ModelLoaded(id=command.id, facts=replace(facts, memory=out_of_memory.memory_use(model, choice.runner)))

    def _unload(self, command: UnloadModel) -> EngineEvent:
        self._release_model("the model was unloaded while this request ran")
        return Done(id=command.id)

    def _release_model(self, reason: str) -> None:
        """Fail its sequences with ModelNotLoaded and free its memory."""
        device = self.executor.device
        self.executor.stop(reason)
        self.executor = ModelExecutor(self._fault_injector, self._send_events, device=device)
        out_of_memory.collect_garbage(device)

    def _stage_and_attach(self, command: AttachSae) -> None:
        """Stage in a background thread while sequences run, so that they are not delayed."""
        if self.executor.scheduler.is_idle:
            self._reply(command.id, lambda: self._attach(_stage_or_error(command)))
        else:
            stage = lambda: self._inbox.put([_stage_or_error(command)])  # noqa: E731
            Thread(target=stage, name="millm-staging", daemon=True).start()

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

    def _progress(self, command_id: str) -> ReportProgress:
        def report(stage: str, done: int, total: int) -> None:
            self._send_events([Progress(id=command_id, stage=stage, done=done, total=total)])
            self._drain_inbox()
            if Cancel(id=command_id) in self._pending:
                raise LoadCancelled

        return report


def _stage_or_error(command: AttachSae) -> StagedSae:
    try:
        return StagedSae(command, stage_sae(command))
    except Exception as error:  # noqa: BLE001  every failure is the command's result
        return StagedSae(command, error)


def stage_sae(command: AttachSae) -> Path:
    """Folder of the SAE's canonical copy, written if new. Raises InvalidSae, or EngineFailed if that fails."""
    try:
        return canonicalise(Path(command.path), Path(command.canonical_root))
    except (OSError, SafetensorError) as error:  # read errors are InvalidSae already
        reason = error.strerror if isinstance(error, OSError) else "is its disk full?"
        raise EngineFailed(f"the SAE's copy cannot be written in MILLM_HOME ({reason})") from error


def attach_sae(
    model: PreTrainedModel, attached_saes: AttachedSaes, command: AttachSae, folder: Path, on_progress: ReportProgress
) -> SaeFacts:
    """`folder` from `stage_sae`. Raises InvalidSae or SaeMismatch without any change."""
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
    sample_every = measure_sample_every(model, sae, command.calibration_ids[0], x)
    on_progress(_PROGRESS_STAGE, 2, 3)
    # opened again: calibration mapped the whole file into memory, the hook needs a few rows
    hook = SteeringHook(open_sae(folder, model), model.device, sample_every)
    facts = _sae_facts(sae, point, calibration, hook, command)
    attached_saes.attach(hook, point, facts, command.replaces)
    on_progress(_PROGRESS_STAGE, 3, 3)
    return facts


def check_encoder_supported(model: PreTrainedModel) -> None:
    """Raises SaeMismatch: encoder families differ in where they normalise, and none has been verified."""
    if not model.can_generate() and not is_known_family(model.config.get_text_config(decoder=True)):
        raise SaeMismatch(
            f"{model.config.model_type} models only embed, and no hook points of them are known;"
            " attach an SAE to a model that generates"
        )


def open_sae(folder: Path, model: PreTrainedModel) -> SparseAutoencoder:
    """TransformerLens centres the residual stream of LayerNorm models, and not that of RMSNorm models."""
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
    """Input [N, d_in] and target output [N, d_out] of the SAE over the texts, without position 0 (attention sink)."""
    x, target = [], []  # each [T - 1, width]
    # transcoders write to another hook point than they read
    out = hooks.resolve_hook_point(model, sae.config.hook_name_out) if sae.config.hook_name_out else point
    for ids in texts:
        captured = hooks.capture(model, [point, out], list(ids))
        x.append(captured[point.name][1:])
        target.append(captured[out.name][1:])
    return torch.cat(x), torch.cat(target)


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
    rocm = f"ROCm {torch.version.hip}" if torch.version.hip else None
    return Platform(
        torch=str(torch.__version__),
        built_for=f"CUDA {torch.version.cuda}" if torch.version.cuda else rocm,
        threads=torch.get_num_threads(),
        devices=tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())),
    )
