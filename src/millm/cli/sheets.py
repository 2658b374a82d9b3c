"""One thing and what is known about it: an entry, a preview or an SAE's measurements in, something to print out."""

from rich.console import Group, RenderableType

from millm.cli.columns import Fact, plain, sheet
from millm.cli.ids import Id
from millm.cli.quantities import files, number, parameters, share, size
from millm.cli.tables import model_state, sae_state
from millm.engine.messages import SaeFacts
from millm.hub.entries import Freed, ModelEntry, SaeEntry
from millm.hub.jobs import Preview

_ORIGINS = {"hub": "Hugging Face", "imported": "a folder of yours", "builtin": "ships with miLLM"}


def model_sheet(entry: ModelEntry, known_saes: int) -> RenderableType:
    facts: list[Fact] = [
        ("state", _with_problem(model_state(entry), entry.problem)),
        ("from", _origin(entry)),
        ("commit", entry.commit),
        ("size", _size(entry)),
        ("architecture", entry.architecture),
        ("parameters", _some(entry.parameters, parameters(entry.parameters))),
        ("weights", _weights(entry.dtype, entry.quantization)),
        ("context", _some(entry.context_length, f"{number(entry.context_length)} tokens")),
        ("writes text", None if entry.generates else "no, it only embeds"),
        ("own code", "needed: MILLM_TRUST_REMOTE_CODE has to name it" if entry.needs_remote_code else None),
        (
            "known SAEs",
            f"{number(known_saes)}: `millm saes --model {entry.id}`" if known_saes else "none in the registry",
        ),
    ]
    return Group(Id(entry.id), sheet(facts))


def sae_sheet(entry: SaeEntry) -> RenderableType:
    facts: list[Fact] = [
        ("state", _with_problem(sae_state(entry), entry.problem)),
        ("from", _origin(entry)),
        ("commit", entry.commit),
        ("size", size(entry.size)),
        ("format", entry.format),
        ("architecture", entry.architecture),
        ("features", _some(entry.width, number(entry.width))),
        ("model", entry.model),
        ("hook point", entry.hook_point),
        ("layer", _some(entry.layer, str(entry.layer))),
        ("model width", _some(entry.d_in, number(entry.d_in))),
        ("Neuronpedia", entry.neuronpedia),
    ]
    return Group(Id(entry.id), sheet(facts))


def preview_sheet(preview: Preview) -> RenderableType:
    """What a download would bring."""
    is_model = preview.asked.kind == "model"
    facts: list[Fact] = [
        ("size", f"{size(preview.size)} in {files(len(preview.files))}{_skipped(preview)}"),
        ("to download", "nothing: it is all here" if preview.to_download == 0 else size(preview.to_download)),
        ("disk", f"{size(preview.disk_free)} free, {size(preview.disk_reserve)} of it kept"),
        ("licence", preview.licence or "not stated"),
        ("gated", _gated(preview)),
        ("architecture", preview.architecture),
        ("parameters", _some(preview.parameters, parameters(preview.parameters))),
        ("weights", _weights(preview.dtype, preview.quantization)),
        ("own code", "needed: MILLM_TRUST_REMOTE_CODE has to name it" if preview.needs_remote_code else None),
        ("known SAEs", (number(preview.known_saes) if preview.known_saes else "none") if is_model else None),
        ("commit", preview.commit),
    ]
    return Group(Id(preview.name), sheet(facts))


def attached_sheet(facts: SaeFacts, model: str) -> RenderableType:
    """What attaching measured."""
    explained = facts.variance_explained
    told: list[Fact] = [
        ("hook point", f"{facts.hook_point} (layer {facts.layer}) of {model}"),
        ("features", f"{number(facts.features)} ({facts.architecture})"),
        ("explains", "does not apply" if explained is None else f"{share(explained)} of the variance"),
        ("L0", f"{facts.l0:.1f} features fire per token"),
        ("residual norm", f"{facts.residual_norm:.4g}, the unit `norm`"),
        ("memory", _some(facts.memory or None, size(facts.memory))),
        ("steering", None if facts.steerable else "no, it only reads here"),
    ]
    warnings = [plain(f"! {warning}") for warning in facts.warnings]
    return Group(Id(facts.sae), sheet(told), *warnings)


def freed_line(freed: Freed) -> RenderableType:
    kept = f"; {size(freed.kept)} stay, because others use them" if freed.kept else ""
    return plain(f"{freed.id} is deleted: {size(freed.bytes)} freed{kept}")


def deletion_line(entry: ModelEntry | SaeEntry) -> str:
    """Before it is done: what goes and what stays."""
    if entry.origin == "imported":
        return f"{entry.id}: only the link goes, your folder stays as it is"
    shared = entry.shared if isinstance(entry, ModelEntry) else 0
    kept = f"; {size(shared)} stay, because others use them" if shared else ""
    return f"{entry.id}: {size(entry.size - shared)} would be freed{kept}"


def _with_problem(state: str, problem: str | None) -> str:
    return f"{state}: {problem}" if problem else state


def _origin(entry: ModelEntry | SaeEntry) -> str:
    verified = ", every file verified" if entry.is_verified else ""
    return f"{_ORIGINS[entry.origin]}{verified}"


def _size(entry: ModelEntry) -> str:
    return f"{size(entry.size)}, {size(entry.shared)} of it shared with others" if entry.shared else size(entry.size)


def _weights(dtype: str | None, quantization: str | None) -> str | None:
    return f"{quantization} ({dtype})" if dtype and quantization else quantization or dtype


def _some(value: object, text: str) -> str | None:
    """`text` where there is something to say."""
    return None if value is None else text


def _skipped(preview: Preview) -> str:
    return f" ({size(preview.skipped)} of other files are left out)" if preview.skipped else ""


def _gated(preview: Preview) -> str | None:
    if not preview.gated:
        return None
    return "yes, and you have access" if preview.has_access else f"yes: ask for access at {preview.link}"
