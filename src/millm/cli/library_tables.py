"""Tables and sheets of the library: models, SAEs, previews, downloads, memory estimates and registry search."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from millm.cli.terminal import (
    UNKNOWN,
    IdText,
    format_bytes,
    format_bytes_progress,
    format_count,
    format_duration,
    format_file_count,
    format_page,
    format_parameters,
    format_percent,
    plain_text,
    sheet,
    table,
)
from millm.engine.messages import SaeFacts
from millm.hub.catalog import RegistryPage
from millm.hub.entries import DeletionResult, ModelEntry, SaeEntry
from millm.hub.jobs import ACTIVE_STATES, DownloadJob, DownloadPreview
from millm.hub.memory_estimate import Estimate

NO_MODELS_MESSAGE = "no models here yet; `millm pull owner/name` downloads one, `millm import FOLDER` adds one of yours"
NO_SAES_MESSAGE = "no SAEs here yet; `millm saes --model owner/name` finds those that are known for a model"
_REMOTE_CODE_TEXT = "needed: MILLM_TRUST_REMOTE_CODE has to name it"
_ORIGIN_TEXTS = {"hub": "Hugging Face", "imported": "a folder of yours", "builtin": "ships with miLLM"}
_SUPPORT_TEXTS = {"read": "yes", "converted": "converted", "no": "no"}


def models_table(entries: Sequence[ModelEntry]) -> RenderableType:
    if not entries:
        return plain_text(NO_MODELS_MESSAGE)
    rows = [
        (
            IdText(entry.id), format_bytes(entry.size), entry.model_type or UNKNOWN,
            format_parameters(entry.parameters), entry.quantization or entry.dtype or UNKNOWN, _state_text(entry),
        )
        for entry in entries
    ]  # fmt: skip
    return Group(table(("ID", ">SIZE", "TYPE", ">PARAMS", "WEIGHTS", "STATE"), rows), *_problem_lines(entries))


def saes_table(entries: Sequence[SaeEntry]) -> RenderableType:
    if not entries:
        return plain_text(NO_SAES_MESSAGE)
    rows = [
        (
            IdText(entry.id), format_bytes(entry.size), format_count(entry.width), format_count(entry.layer),
            entry.format or UNKNOWN, _state_text(entry),
        )
        for entry in entries
    ]  # fmt: skip
    return Group(table(("ID", ">SIZE", ">FEATURES", ">LAYER", "FORMAT", "STATE"), rows), *_problem_lines(entries))


def registry_table(results: RegistryPage, offset: int = 0) -> RenderableType:
    if not results.saes:
        return plain_text("no such SAE is known; leave out an option, or pull one by its path: owner/name/path/inside")
    rows = [
        (
            IdText(sae.id), format_count(sae.layer), sae.site, format_count(sae.width),
            UNKNOWN if sae.l0 is None else f"{sae.l0:.0f}", _SUPPORT_TEXTS[sae.support],
        )
        for sae in results.saes
    ]  # fmt: skip
    page = format_page(offset, len(results.saes), results.total)
    return Group(
        table(("ID", ">LAYER", "SITE", ">FEATURES", ">L0", "READ"), rows),
        plain_text(f"{page}; `millm pull ID` downloads one"),
    )


def model_details(entry: ModelEntry, known_saes: int) -> RenderableType:
    size = format_bytes(entry.size)
    known = f"{format_count(known_saes)}: `millm saes --model {entry.id}`" if known_saes else "none in the registry"
    return sheet(
        entry.id,
        [
            ("state", _state_and_problem(entry)),
            ("from", _origin_text(entry)),
            ("commit", entry.commit),
            ("size", f"{size}, {format_bytes(entry.shared)} of it shared with others" if entry.shared else size),
            ("architecture", entry.architecture),
            ("parameters", format_parameters(entry.parameters)),
            ("weights", _weights_text(entry.dtype, entry.quantization)),
            ("context", f"{length:,} tokens" if (length := entry.context_length) else None),
            ("writes text", None if entry.generates else "no, it only embeds"),
            ("own code", _REMOTE_CODE_TEXT if entry.needs_remote_code else None),
            ("known SAEs", known),
        ],
    )


def sae_details(entry: SaeEntry) -> RenderableType:
    return sheet(
        entry.id,
        [
            ("state", _state_and_problem(entry)),
            ("from", _origin_text(entry)),
            ("commit", entry.commit),
            ("size", format_bytes(entry.size)),
            ("format", entry.format),
            ("architecture", entry.architecture),
            ("features", format_count(entry.width)),
            ("model", entry.model),
            ("hook point", entry.hook_point),
            ("layer", format_count(entry.layer)),
            ("model width", format_count(entry.d_in)),
            ("Neuronpedia", entry.neuronpedia),
        ],
    )


def preview_details(preview: DownloadPreview) -> RenderableType:
    """What a download would fetch."""
    files = f"{format_bytes(preview.size)} in {format_file_count(len(preview.files))}"
    skipped = f" ({format_bytes(preview.skipped)} of other files are left out)" if preview.skipped else ""
    gated = "yes, and you have access" if preview.has_access else f"yes: ask for access at {preview.link}"
    known = format_count(preview.known_saes) if preview.known_saes else "none"
    return sheet(
        preview.name,
        [
            ("size", files + skipped),
            ("to download", format_bytes(preview.to_download) if preview.to_download else "nothing: it is all here"),
            ("disk", f"{format_bytes(preview.disk_free)} free, {format_bytes(preview.disk_reserve)} of it kept"),
            ("licence", preview.licence or "not stated"),
            ("gated", gated if preview.gated else None),
            ("architecture", preview.architecture),
            ("parameters", format_parameters(preview.parameters)),
            ("weights", _weights_text(preview.dtype, preview.quantization)),
            ("own code", _REMOTE_CODE_TEXT if preview.needs_remote_code else None),
            ("known SAEs", known if preview.asked.kind == "model" else None),
            ("commit", preview.commit),
        ],
    )


def attached_sae_details(facts: SaeFacts, model: str) -> RenderableType:
    """The measurements of an attachment to `model`."""
    explained = facts.variance_explained
    return sheet(
        facts.sae,
        [
            ("hook point", f"{facts.hook_point} (layer {facts.layer}) of {model}"),
            ("features", f"{format_count(facts.features)} ({facts.architecture})"),
            ("explains", "does not apply" if explained is None else f"{format_percent(explained)} of the variance"),
            ("L0", f"{facts.l0:.1f} features fire per token"),
            ("residual norm", f"{facts.residual_norm:.4g}, the unit `norm`"),
            ("memory", format_bytes(facts.memory or None)),
            ("steering", None if facts.steerable else "no, it only reads here"),
        ],
        *(f"! {warning}" for warning in facts.warnings),
    )


def deletion_line(entry: ModelEntry | SaeEntry) -> str:
    """What a deletion would free."""
    if entry.origin == "imported":
        return f"{entry.id}: only the link goes, your folder stays as it is"
    shared = entry.shared if isinstance(entry, ModelEntry) else 0
    return f"{entry.id}: {format_bytes(entry.size - shared)} would be freed{_shared_text(shared)}"


def freed_line(freed: DeletionResult) -> RenderableType:
    return plain_text(f"{freed.id} is deleted: {format_bytes(freed.bytes)} freed{_shared_text(freed.kept)}")


def _shared_text(size: int) -> str:
    return f"; {format_bytes(size)} stay, because others use them" if size else ""


def _state_text(entry: ModelEntry | SaeEntry) -> str:
    if isinstance(entry, ModelEntry) and entry.is_loaded:
        return "loaded"
    if isinstance(entry, SaeEntry) and entry.is_attached:
        return "attached"
    return "on disk" if entry.state == "whole" else entry.state


def _state_and_problem(entry: ModelEntry | SaeEntry) -> str:
    return f"{_state_text(entry)}: {entry.problem}" if entry.problem else _state_text(entry)


def _problem_lines(entries: Sequence[ModelEntry] | Sequence[SaeEntry]) -> list[RenderableType]:
    return [plain_text(f"! {entry.id}: {entry.problem}") for entry in entries if entry.problem]


def _origin_text(entry: ModelEntry | SaeEntry) -> str:
    return f"{_ORIGIN_TEXTS[entry.origin]}{', every file verified' if entry.is_verified else ''}"


def _weights_text(dtype: str | None, quantization: str | None) -> str | None:
    return f"{quantization} ({dtype})" if dtype and quantization else quantization or dtype


_JOB_BAR_WIDTH = 24
_JOB_STATE_TEXTS = {
    "queued": "waits for its turn",
    "resolving": "reading the repository's file list",
    "running": "downloading",
    "verifying": "comparing every file's hash",
    "converting": "converting to a format that can be read",
    "cancelled": "cancelled; what is finished stays",
    "interrupted": "interrupted; what is finished stays",
}


def job_lines(job: DownloadJob) -> RenderableType:
    """A download in two lines, and a third for a state such as `waiting` beside the bar."""
    state = plain_text(f"  {job_state_text(job)}")
    if not (job.total and job.state in ACTIVE_STATES):
        return Group(IdText(job.name), state)
    bar = ProgressBar(total=job.total, completed=job.done, width=_JOB_BAR_WIDTH)
    line = Table.grid(padding=(0, 1))
    line.add_row("", bar, Text(job_progress_text(job)))
    return Group(IdText(job.name), line, *([] if job.state == "running" else [state]))


def job_state_text(job: DownloadJob) -> str:
    """The state in words; a wait or a failure with its reason."""
    reason = job.problem.message if job.problem else None
    match job.state:
        case "waiting":
            left = "" if job.retry_in is None else f" {format_duration(job.retry_in)}"
            return f"waiting{left}: {reason or 'the network'}"
        case "installed":
            return f"installed, {format_bytes(job.total)} in {format_file_count(job.files_total)}"
        case "failed":
            return f"failed: {reason or 'no reason given'}"
    return _JOB_STATE_TEXTS[job.state]


def job_progress_text(job: DownloadJob) -> str:
    """Bytes, speed, time left, files: 53 characters at most."""
    speed = [f"{format_bytes(job.speed)}/s"] if job.speed is not None else []
    left = [f"{format_duration(job.seconds_left)} left"] if job.seconds_left is not None else []
    files = f"{job.files_done}/{format_file_count(job.files_total)}"
    return "  ".join([format_bytes_progress(job.done, job.total), *speed, *left, files])


BAR_WIDTH = 24
"""Characters of the longest bar."""
_VERDICTS = {"fits": "fits", "does_not_fit": "does not fit", "unknown": "unknown: the files do not say enough"}


def estimate_table(estimate: Estimate) -> RenderableType:
    """Each part of the memory with a bar, the total, and the verdict."""
    parts = _estimate_parts(estimate)
    largest = max(count or 0 for _, count in parts)
    rows = [(name, format_bytes(count), bar_text(count, largest)) for name, count in parts]
    rows += [("total", format_bytes(estimate.total), _free_memory_text(estimate))]
    weights = _weights_text(estimate.dtype, None if estimate.quantization == "none" else estimate.quantization)
    length = estimate.context
    context = "context unknown" if length is None else f"one sequence of {format_count(length)} tokens"
    return Group(
        IdText(estimate.model),
        plain_text(f"on {estimate.device}, {weights}, {context}"),
        plain_text(""),
        table(("PART", ">SIZE", ""), rows),
        *map(plain_text, _estimate_notes(estimate)),
    )


def quantizations_table(estimates: Sequence[Estimate]) -> RenderableType:
    """One model's memory at each quantization."""
    rows = [
        (each.quantization, *map(format_bytes, (each.weights, each.total, each.free)), _VERDICTS[each.verdict])
        for each in estimates
    ]
    return table(("QUANTIZATION", ">WEIGHTS", ">TOTAL", ">FREE", "VERDICT"), rows)


def bar_text(count: int | None, largest: int) -> str:
    """A bar in proportion to `largest`, at least one character for a count above 0."""
    return "█" * max(1, round(BAR_WIDTH * count / largest)) if count and largest else ""


def _estimate_parts(estimate: Estimate) -> list[tuple[str, int | None]]:
    parts: list[tuple[str, int | None]] = [("weights", estimate.weights), ("keys and values", estimate.kv_cache)]
    if estimate.saes:
        parts.append(("SAEs", estimate.saes))
    return [*parts, ("activations", estimate.activations), ("overhead", estimate.overhead)]


def _free_memory_text(estimate: Estimate) -> str:
    if estimate.free is None:
        return "free memory unknown"
    evictable = f" + {format_bytes(estimate.evictable)} of the loaded model" if estimate.evictable else ""
    return f"of {format_bytes(estimate.free)} free{evictable}"


def _estimate_notes(estimate: Estimate) -> list[str]:
    notes = []
    if (peak := estimate.while_loading or 0) > (estimate.weights or 0):
        notes.append(f"while they are read, the weights take {format_bytes(peak)}")
    if estimate.kv_cache_all is not None and estimate.slots > 1:
        size = format_bytes(estimate.kv_cache_all)
        notes.append(f"{estimate.slots} such sequences at once would take {size} for keys and values")
    advice = f"; {estimate.advice}" if estimate.advice else ""
    return [*notes, f"verdict: {_VERDICTS[estimate.verdict]}{advice}"]
