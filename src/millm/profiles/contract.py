"""The profile: a named steering as a JSON document that people, miStudio and git can read."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, FiniteFloat, StringConstraints

from millm.sae.steering import FeatureSetting, Mode, Positions, Skip, Unit

ProfileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,127}$")]
"""Lower case without `:`, `/` or spaces, because `model:name` is how a client picks it."""


class ProfileFeature(BaseModel):
    """One feature of a profile, or of a request's `steering`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: Annotated[int, Field(ge=0, strict=True, description="Feature index in the SAE's dictionary.")]
    strength: Annotated[FiniteFloat, Field(strict=True, description="What is asked, in `unit`.")] = 0.0
    unit: Unit = "raw"
    mode: Mode = "add"
    sae: Annotated[str | None, Field(description="Which attached SAE, if there are several.")] = None
    max_act: Annotated[
        FiniteFloat | None, Field(strict=True, gt=0, description="The feature's maximum, for `max_act`.")
    ] = None
    label: Annotated[str | None, Field(max_length=500, description="What the feature seems to mean.")] = None

    def setting(self) -> FeatureSetting:
        return FeatureSetting(
            index=self.index,
            strength=self.strength,
            unit=self.unit,
            mode=self.mode,
            sae=self.sae,
            max_act=self.max_act,
        )


class SteeringRequest(BaseModel):
    """`steering` in a request's body, and the core of a profile."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: Annotated[tuple[ProfileFeature, ...], FailFast()] = ()
    positions: Positions = "all"
    skip: Skip | None = None
    """None: `bos`, or `special` where an SAE was trained without special tokens and its activations are read."""
    skip_constrained: Annotated[
        bool,
        Field(strict=True, description="No steering while a JSON schema or a forced tool call decides the tokens."),
    ] = False
    reference_norm: Annotated[FiniteFloat | None, Field(strict=True, gt=0)] = None
    """The residual norm that `unit: norm` was written against; default: the one measured at attach."""


class Profile(SteeringRequest):
    """A steering with a name."""

    version: Literal["1"] = "1"
    name: ProfileName
    description: Annotated[str, Field(max_length=2000)] = ""
    model: Annotated[str | None, Field(description="The model it was made on, as a Hugging Face id or a name.")] = None


class ActivationsRequest(BaseModel):
    """`activations` in a request's body: which features to report, at which tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: Annotated[tuple[Annotated[int, Field(ge=0, strict=True)], ...], FailFast(), Field(max_length=128)] = ()
    top_k: Annotated[
        int, Field(ge=0, le=100, strict=True, description="Also the most active features of the whole dictionary.")
    ] = 0
    sample_every: Annotated[
        int | None,
        Field(ge=1, le=1000, strict=True, description="Read `top_k` at positions that are a multiple of this."),
    ] = None
    """None: as often as costs little, measured at attach."""
    tokens: Literal["generated", "prompt", "all"] = "generated"
    when: Literal["before", "after"] = "before"
    sae: str | None = None
