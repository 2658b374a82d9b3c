"""Which attached SAE is meant, and whether it has such a feature."""

from millm.errors import InvalidRequest, SaeDetached, SaeNotFound
from millm.loaded import AttachedSae
from millm.state import State


def find_attached_sae(state: State, name: str | None) -> AttachedSae:
    """The one named, or the only one. Raises SaeNotFound, SaeDetached, or InvalidRequest where several are attached."""
    if state.engine.degraded_reason and not state.saes:
        raise SaeDetached(f"no SAE can be used: {state.engine.degraded_reason}; restart the server to attach it again")
    known = ", ".join(sorted(state.saes)) or "none"
    if name is not None and name not in state.saes:
        raise SaeNotFound(f"no SAE named {name[:128]!r} is attached; attached: {known}", param="sae")
    if not state.saes:
        raise SaeNotFound("no SAE is attached; attach one first: `millm saes` finds those for a model", param="sae")
    if name is None and len(state.saes) > 1:
        raise InvalidRequest(f"say which `sae` is meant; attached: {known}", param="sae")
    return state.saes[name] if name is not None else next(iter(state.saes.values()))


def check_feature_index(attached: AttachedSae, index: int, param: str) -> None:
    """Raises InvalidRequest."""
    facts = attached.facts
    if index >= facts.features:
        raise InvalidRequest(f"feature {index} is not in 0..{facts.features - 1} of SAE {facts.sae!r}", param=param)
