"""One thing and what is known about it: an entry, a preview or an SAE's measurements in, something to print out.

Public SAEs that were searched for, as a table; and the widths that people write. Knows no server.

A download as it goes, in two lines: a job in, something to draw out. Knows no server.

How much memory a model would take, as a table of bars: an estimate in, something to print out.

What is in the library, as tables: entries in, something to print out. Knows no server.
"""

import re
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from millm.cli.terminal import (
    UNKNOWN,
    Fact,
    IdText,
    details_table,
    format_bytes,
    format_bytes_progress,
    format_count,
    format_duration,
    format_file_count,
    format_parameters,
    format_percent,
    plain_text,
    table,
)
from millm.engine.messages import SaeFacts
from millm.errors import InvalidRequest
from millm.hub.catalog import RegistryPage
from millm.hub.entries import DeletionResult, ModelEntry, SaeEntry
from millm.hub.jobs import ACTIVE_STATES, DownloadJob, DownloadPreview
from millm.hub.memory_estimate import Estimate

_WIDTH_PATTERN = re.compile(r"(\d+)([km]?)", re.IGNORECASE | re.ASCII)
_WIDTHS_BY_THOUSANDS = {2**exponent // 1000: 2**exponent for exponent in range(10, 24)}
"""Thousands as names tell them → features: `width_65k` has 65,536."""
_SUPPORT_TEXTS = {"read": "yes", "converted": "converted", "no": "no"}


def registry_table(results: RegistryPage, offset: int = 0) -> RenderableType:
    if not results.saes:
        return plain_text("no such SAE is known; leave out an option, or pull one by its place: owner/name/path/inside")
    rows = [
        (
            IdText(sae.id), UNKNOWN if sae.layer is None else str(sae.layer), sae.site, format_count(sae.width),
            UNKNOWN if sae.l0 is None else f"{sae.l0:.0f}", _SUPPORT_TEXTS[sae.support],
        )
        for sae in results.saes
    ]  # fmt: skip
    last = offset + len(results.saes)
    more = f"; --offset {last} shows more" if last < results.total else ""
    return Group(
        table(("ID", ">LAYER", "SITE", ">FEATURES", ">L0", "READ"), rows),
        plain_text(f"{offset + 1} to {last} of {format_count(results.total)}{more}; `millm pull ID` downloads one"),
    )


def parse_width(text: str) -> int:
    """`16384`, `16k`, `65k` (65,536, as Gemma Scope's names have it), `1m`. Raises InvalidRequest."""
    found = _WIDTH_PATTERN.fullmatch(text)
    if not found:
        raise InvalidRequest(f"--width {text!r} is no number of features; give one such as 16384 or 16k")
    count, unit = int(found[1]), found[2].lower()
    if unit == "m":
        return count * 2**20
    return _WIDTHS_BY_THOUSANDS.get(count, count * 1024) if unit == "k" else count


_JOB_BAR_WIDTH = 24
_JOB_STATE_TEXTS = {
    "queued": "waits for its turn",
    "resolving": "asking Hugging Face what there is",
    "verifying": "comparing every file's hash",
    "converting": "converting to a format that can be read",
    "cancelled": "cancelled; what is finished stays",
    "interrupted": "interrupted; what is finished stays",
}


def job_lines(job: DownloadJob) -> RenderableType:
    line = _job_bar(job) if job.total and job.state in ACTIVE_STATES else plain_text(f"  {job_state_text(job)}")
    waits = [plain_text(f"  {job_state_text(job)}")] if job.total and job.state in ACTIVE_STATES - {"running"} else []
    return Group(IdText(job.name), line, *waits)


def job_state_text(job: DownloadJob) -> str:
    """In words; a wait or a failure with its reason."""
    match job.state:
        case "running":
            return "downloading"
        case "waiting":
            left = "" if job.retry_in is None else f" {format_duration(job.retry_in)}"
            return f"waiting{left}: {job.problem.message if job.problem else 'the network'}"
        case "installed":
            return f"installed, {format_bytes(job.total)} in {format_file_count(job.files_total)}"
        case "failed":
            return f"failed: {job.problem.message if job.problem else 'no reason was told'}"
    return _JOB_STATE_TEXTS[job.state]


def job_progress_text(job: DownloadJob) -> str:
    """Bytes, speed, time left, files: 53 characters at most."""
    speed = [f"{format_bytes(job.speed)}/s"] if job.speed is not None else []
    left = [f"{format_duration(job.seconds_left)} left"] if job.seconds_left is not None else []
    of_files = [f"{job.files_done}/{format_file_count(job.files_total)}"]
    return "  ".join([format_bytes_progress(job.done, job.total), *speed, *left, *of_files])


def _job_bar(job: DownloadJob) -> RenderableType:
    line = Table.grid(padding=(0, 1))
    line.add_row(
        "", ProgressBar(total=job.total, completed=job.done, width=_JOB_BAR_WIDTH), Text(job_progress_text(job))
    )
    return line


BAR_WIDTH = 24
"""Characters of the longest bar."""
_VERDICTS = {"fits": "fits", "does_not_fit": "does not fit", "unknown": "unknown: the files do not say enough"}


def estimate_table(estimate: Estimate) -> RenderableType:
    """Each part and its share of the whole."""
    parts = _estimate_parts(estimate)
    largest = max((count or 0 for _, count in parts), default=0)
    rows = [(name, format_bytes(count), bar_text(count, largest)) for name, count in parts]
    rows += [("total", format_bytes(estimate.total), _free_memory_text(estimate))]
    return Group(
        IdText(estimate.model),
        plain_text(f"on {estimate.device}, {_estimate_weights(estimate)}, {_context_text(estimate)}"),
        plain_text(""),
        table(("PART", ">SIZE", ""), rows),
        *(plain_text(line) for line in _estimate_notes(estimate)),
    )


def quantizations_table(estimates: Sequence[Estimate]) -> RenderableType:
    """The same model with its weights in more and fewer bits."""
    rows = [
        (
            estimate.quantization,
            format_bytes(estimate.weights),
            format_bytes(estimate.total),
            format_bytes(estimate.free),
            verdict_text(estimate),
        )
        for estimate in estimates
    ]
    return table(("QUANTIZATION", ">WEIGHTS", ">TOTAL", ">FREE", "VERDICT"), rows)


def verdict_text(estimate: Estimate) -> str:
    return _VERDICTS[estimate.verdict]


def bar_text(count: int | None, largest: int) -> str:
    """At least one character of what is there at all."""
    if not count or not largest:
        return ""
    return "█" * max(1, round(BAR_WIDTH * count / largest))


def _estimate_parts(estimate: Estimate) -> list[tuple[str, int | None]]:
    parts: list[tuple[str, int | None]] = [("weights", estimate.weights), ("keys and values", estimate.kv_cache)]
    if estimate.saes:
        parts.append(("SAEs", estimate.saes))
    return [*parts, ("activations", estimate.activations), ("overhead", estimate.overhead)]


def _estimate_weights(estimate: Estimate) -> str:
    return estimate.dtype if estimate.quantization == "none" else f"{estimate.quantization} ({estimate.dtype})"


def _context_text(estimate: Estimate) -> str:
    return "context unknown" if estimate.context is None else f"one sequence of {format_count(estimate.context)} tokens"


def _free_memory_text(estimate: Estimate) -> str:
    if estimate.free is None:
        return "of an unknown room"
    evicted = f" + {format_bytes(estimate.evictable)} that would go first" if estimate.evictable else ""
    return f"of {format_bytes(estimate.free)} free{evicted}"


def _estimate_notes(estimate: Estimate) -> list[str]:
    all_slots = (
        f"{estimate.slots} such sequences at once would take {format_bytes(estimate.kv_cache_all)} for keys and values"
        if estimate.kv_cache_all is not None and estimate.slots > 1
        else ""
    )
    reads = estimate.while_loading or 0
    peak = f"while they are read, the weights take {format_bytes(reads)}" if reads > (estimate.weights or 0) else ""
    advice = f"; {estimate.advice}" if estimate.advice else ""
    return [line for line in (peak, all_slots, f"verdict: {verdict_text(estimate)}{advice}") if line]


NO_MODELS_MESSAGE = "no models here yet; `millm pull owner/name` downloads one, `millm import FOLDER` adds one of yours"
NO_SAES_MESSAGE = "no SAEs here yet; `millm saes --model owner/name` finds those that are known for a model"


def models_table(entries: Sequence[ModelEntry]) -> RenderableType:
    if not entries:
        return plain_text(NO_MODELS_MESSAGE)
    rows = [
        (
            IdText(entry.id), format_bytes(entry.size), entry.model_type or UNKNOWN, format_parameters(entry.parameters),
            entry.quantization or entry.dtype or UNKNOWN, model_state_text(entry),
        )
        for entry in entries
    ]  # fmt: skip
    return Group(table(("ID", ">SIZE", "TYPE", ">PARAMS", "WEIGHTS", "STATE"), rows), *_problem_lines(entries))


def saes_table(entries: Sequence[SaeEntry]) -> RenderableType:
    if not entries:
        return plain_text(NO_SAES_MESSAGE)
    rows = [
        (
            IdText(entry.id), format_bytes(entry.size), format_count(entry.width), _layer_text(entry.layer),
            entry.format or UNKNOWN, sae_state_text(entry),
        )
        for entry in entries
    ]  # fmt: skip
    return Group(table(("ID", ">SIZE", ">FEATURES", ">LAYER", "FORMAT", "STATE"), rows), *_problem_lines(entries))


def model_state_text(entry: ModelEntry) -> str:
    return "loaded" if entry.is_loaded else _disk_state_text(entry)


def sae_state_text(entry: SaeEntry) -> str:
    return "attached" if entry.is_attached else _disk_state_text(entry)


def _disk_state_text(entry: ModelEntry | SaeEntry) -> str:
    return "on disk" if entry.state == "whole" else entry.state


def _layer_text(layer: int | None) -> str:
    return UNKNOWN if layer is None else str(layer)


def _problem_lines(entries: Sequence[ModelEntry] | Sequence[SaeEntry]) -> list[RenderableType]:
    return [plain_text(f"! {entry.id}: {entry.problem}") for entry in entries if entry.problem]


_ORIGIN_TEXTS = {"hub": "Hugging Face", "imported": "a folder of yours", "builtin": "ships with miLLM"}


def model_details(entry: ModelEntry, known_saes: int) -> RenderableType:
    facts: list[Fact] = [
        ("state", _with_problem(model_state_text(entry), entry.problem)),
        ("from", _origin_text(entry)),
        ("commit", entry.commit),
        ("size", _model_size_text(entry)),
        ("architecture", entry.architecture),
        ("parameters", _text_if_known(entry.parameters, format_parameters(entry.parameters))),
        ("weights", _weights_text(entry.dtype, entry.quantization)),
        ("context", _text_if_known(entry.context_length, f"{format_count(entry.context_length)} tokens")),
        ("writes text", None if entry.generates else "no, it only embeds"),
        ("own code", "needed: MILLM_TRUST_REMOTE_CODE has to name it" if entry.needs_remote_code else None),
        (
            "known SAEs",
            f"{format_count(known_saes)}: `millm saes --model {entry.id}`" if known_saes else "none in the registry",
        ),
    ]
    return Group(IdText(entry.id), details_table(facts))


def sae_details(entry: SaeEntry) -> RenderableType:
    facts: list[Fact] = [
        ("state", _with_problem(sae_state_text(entry), entry.problem)),
        ("from", _origin_text(entry)),
        ("commit", entry.commit),
        ("size", format_bytes(entry.size)),
        ("format", entry.format),
        ("architecture", entry.architecture),
        ("features", _text_if_known(entry.width, format_count(entry.width))),
        ("model", entry.model),
        ("hook point", entry.hook_point),
        ("layer", _text_if_known(entry.layer, str(entry.layer))),
        ("model width", _text_if_known(entry.d_in, format_count(entry.d_in))),
        ("Neuronpedia", entry.neuronpedia),
    ]
    return Group(IdText(entry.id), details_table(facts))


def preview_details(preview: DownloadPreview) -> RenderableType:
    """What a download would bring."""
    is_model = preview.asked.kind == "model"
    facts: list[Fact] = [
        ("size", f"{format_bytes(preview.size)} in {format_file_count(len(preview.files))}{_skipped_text(preview)}"),
        ("to download", "nothing: it is all here" if preview.to_download == 0 else format_bytes(preview.to_download)),
        ("disk", f"{format_bytes(preview.disk_free)} free, {format_bytes(preview.disk_reserve)} of it kept"),
        ("licence", preview.licence or "not stated"),
        ("gated", _gated_text(preview)),
        ("architecture", preview.architecture),
        ("parameters", _text_if_known(preview.parameters, format_parameters(preview.parameters))),
        ("weights", _weights_text(preview.dtype, preview.quantization)),
        ("own code", "needed: MILLM_TRUST_REMOTE_CODE has to name it" if preview.needs_remote_code else None),
        ("known SAEs", (format_count(preview.known_saes) if preview.known_saes else "none") if is_model else None),
        ("commit", preview.commit),
    ]
    return Group(IdText(preview.name), details_table(facts))


def attached_sae_details(facts: SaeFacts, model: str) -> RenderableType:
    """What attaching measured."""
    explained = facts.variance_explained
    told: list[Fact] = [
        ("hook point", f"{facts.hook_point} (layer {facts.layer}) of {model}"),
        ("features", f"{format_count(facts.features)} ({facts.architecture})"),
        ("explains", "does not apply" if explained is None else f"{format_percent(explained)} of the variance"),
        ("L0", f"{facts.l0:.1f} features fire per token"),
        ("residual norm", f"{facts.residual_norm:.4g}, the unit `norm`"),
        ("memory", _text_if_known(facts.memory or None, format_bytes(facts.memory))),
        ("steering", None if facts.steerable else "no, it only reads here"),
    ]
    warnings = [plain_text(f"! {warning}") for warning in facts.warnings]
    return Group(IdText(facts.sae), details_table(told), *warnings)


def freed_line(freed: DeletionResult) -> RenderableType:
    kept = f"; {format_bytes(freed.kept)} stay, because others use them" if freed.kept else ""
    return plain_text(f"{freed.id} is deleted: {format_bytes(freed.bytes)} freed{kept}")


def deletion_line(entry: ModelEntry | SaeEntry) -> str:
    """Before it is done: what goes and what stays."""
    if entry.origin == "imported":
        return f"{entry.id}: only the link goes, your folder stays as it is"
    shared = entry.shared if isinstance(entry, ModelEntry) else 0
    kept = f"; {format_bytes(shared)} stay, because others use them" if shared else ""
    return f"{entry.id}: {format_bytes(entry.size - shared)} would be freed{kept}"


def _with_problem(state: str, problem: str | None) -> str:
    return f"{state}: {problem}" if problem else state


def _origin_text(entry: ModelEntry | SaeEntry) -> str:
    verified = ", every file verified" if entry.is_verified else ""
    return f"{_ORIGIN_TEXTS[entry.origin]}{verified}"


def _model_size_text(entry: ModelEntry) -> str:
    return (
        f"{format_bytes(entry.size)}, {format_bytes(entry.shared)} of it shared with others"
        if entry.shared
        else format_bytes(entry.size)
    )


def _weights_text(dtype: str | None, quantization: str | None) -> str | None:
    return f"{quantization} ({dtype})" if dtype and quantization else quantization or dtype


def _text_if_known(value: object, text: str) -> str | None:
    """`text` where there is something to say."""
    return None if value is None else text


def _skipped_text(preview: DownloadPreview) -> str:
    return f" ({format_bytes(preview.skipped)} of other files are left out)" if preview.skipped else ""


def _gated_text(preview: DownloadPreview) -> str | None:
    if not preview.gated:
        return None
    return "yes, and you have access" if preview.has_access else f"yes: ask for access at {preview.link}"
