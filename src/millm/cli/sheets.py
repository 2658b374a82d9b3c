"""One thing and what is known about it: an entry, a preview or an SAE's measurements in, something to print out."""

from rich.console import Group, RenderableType

from millm.cli.columns import Fact, details_table, plain_text
from millm.cli.ids import IdText
from millm.cli.quantities import format_bytes, format_count, format_file_count, format_parameters, format_percent
from millm.cli.tables import model_state_text, sae_state_text
from millm.engine.messages import SaeFacts
from millm.hub.entries import DeletionResult, ModelEntry, SaeEntry
from millm.hub.jobs import DownloadPreview

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
