"""A plain Python model of the state: what is loaded, attached and active after a change, and which changes fail."""

from dataclasses import dataclass, field

from millm.errors import InvalidModel, MillmError, ModelNotFound, ModelNotLoaded, SaeMismatch, SaeNotFound
from millm.status import ModelSpec, SaeSpec

LAYERS = {"tiny-llama": 4, "other-llama": 4, "gpt2": 8}
WIDTHS = {"tiny-llama": 48, "other-llama": 48, "gpt2": 32}
PROFILE = "shove"
"""It names no SAE: it can be made active where exactly one is attached."""


@dataclass(frozen=True)
class Trained:
    """The model and hook point of an SAE."""

    model: str
    hook_point: str


SAES = {
    "tiny": Trained("tiny-llama", "blocks.1.hook_resid_post"),
    "same-place": Trained("tiny-llama", "blocks.1.hook_resid_post"),
    "second": Trained("tiny-llama", "blocks.2.hook_resid_post"),
    "gpt2-sae": Trained("gpt2", "blocks.6.hook_resid_pre"),
}


def place(wanted: SaeSpec) -> str:
    own = SAES[wanted.id].hook_point
    if wanted.hook_point:
        return wanted.hook_point
    return own if wanted.layer is None else f"blocks.{wanted.layer}.{own.rpartition('.')[2]}"


@dataclass(frozen=True)
class Steered:
    """The active steering, with or without a profile, of one SAE."""

    sae: str
    profile: str | None = None


@dataclass
class Expected:
    """`remembered`: what a restart attaches. It differs from `saes` once an engine without memory turned them off."""

    model: ModelSpec | None = None
    saes: dict[str, SaeSpec] = field(default_factory=dict)
    remembered: dict[str, SaeSpec] = field(default_factory=dict)
    active: Steered | None = None

    @property
    def steers(self) -> bool:
        """Whether the active steering is applied; not while its SAE is detached."""
        return self.active is not None and self.active.sae in self.saes

    def refuses_load(self, wanted: ModelSpec) -> type[MillmError] | None:
        if wanted.id == "broken":
            return InvalidModel
        return None if wanted.id in LAYERS else ModelNotFound

    def refuses_attach(self, wanted: SaeSpec) -> type[MillmError] | None:
        if self.model is None:
            return ModelNotLoaded
        if wanted.id not in SAES or (wanted.replaces is not None and wanted.replaces not in self.saes):
            return SaeNotFound
        return None if self._belongs(wanted, self.model.id) and self._is_free(wanted) else SaeMismatch

    def load(self, wanted: ModelSpec | None) -> None:
        if wanted is None or self.model != wanted:
            self.model, self.saes, self.remembered, self.active = wanted, {}, {}, None

    def attach(self, wanted: SaeSpec) -> None:
        if self.active and wanted.replaces == self.active.sae != wanted.id:
            self.active = None
        self.saes = {**{name: sae for name, sae in self.saes.items() if name != wanted.replaces}, wanted.id: wanted}
        self.remembered = dict(self.saes)
        if self.active and self.active.profile and self.active.sae == wanted.id and len(self.saes) != 1:
            self.active = None  # it was turned off, and now it cannot be told which SAE the profile means

    def detach(self, name: str) -> None:
        del self.saes[name]
        self.remembered = dict(self.saes)
        if self.active and self.active.sae == name:
            self.active = None

    def _belongs(self, wanted: SaeSpec, model: str) -> bool:
        trained, layer = SAES[wanted.id], int(place(wanted).split(".")[1])
        named = trained.model == model or wanted.allow_model_mismatch
        return layer < LAYERS[model] and WIDTHS[trained.model] == WIDTHS[model] and named

    def _is_free(self, wanted: SaeSpec) -> bool:
        others = {name: sae for name, sae in self.saes.items() if name != wanted.replaces}
        return wanted.id not in others and place(wanted) not in {place(sae) for sae in others.values()}
