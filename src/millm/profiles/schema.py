"""The profile: a named steering as a JSON document that people, miStudio and git can read (docs/profiles.md).

What a profile may be called: 1 to 128 characters of any script; two names that read the same are one.
"""

import re
import unicodedata
from collections.abc import Iterator
from datetime import datetime
from itertools import count
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    FiniteFloat,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from millm.sae.steering import FeatureSetting, Mode, Positions, Skip, Unit

MAX_NAME_LENGTH = 128
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Invisible characters that make a name look like another one."""


def validate_name(name: str) -> str:
    """In Unicode's composed form (NFC). Raises ValueError."""
    name = unicodedata.normalize("NFC", name)
    if not 1 <= len(name) <= MAX_NAME_LENGTH:
        raise ValueError(f"a name has 1 to {MAX_NAME_LENGTH} characters, not {len(name)}")
    if name != name.strip():
        raise ValueError("a name cannot begin or end with a space")
    if "/" in name or "\\" in name or set(name) <= {"."}:
        raise ValueError("a name cannot hold slashes, nor be of dots alone")
    if any(
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _BIDI_CONTROLS for character in name
    ):
        raise ValueError("a name cannot hold control characters, nor such as change the direction of text")
    return name


def name_key(name: str) -> str:
    """Equal for names that differ in case or in how their characters are composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def numbered_names(name: str) -> Iterator[str]:
    """`name`, `name (2)`, `name (3)`, …, none longer than a name may be; `name (2)` is followed by `name (3)`."""
    yield name
    plain = re.sub(r" \([1-9]\d*\)$", "", name)
    for number in count(2):
        ending = f" ({number})"
        yield plain[: MAX_NAME_LENGTH - len(ending)] + ending


ProfileName = Annotated[
    str,
    Field(min_length=1, description="1 to 128 characters of any script, without slashes."),
    AfterValidator(validate_name),
]


VERSION: Literal["1"] = "1"
MAX_FEATURES = 4096
MAX_SAES = 32
Index = Annotated[int, Field(ge=0, le=2**31 - 1, strict=True, description="Feature index in the SAE's dictionary.")]
ShortText = Annotated[str, Field(max_length=500)]


class _FrozenModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProfileFeature(_FrozenModel):
    """One feature of a profile, or of a request's `steering`."""

    index: Index
    strength: Annotated[FiniteFloat, Field(strict=True, description="What is asked, in `unit`.")] = 0.0
    unit: Unit = "raw"
    mode: Mode = "add"
    sae: Annotated[
        str | None,
        Field(max_length=512, description="Which SAE, if there are several: in a profile one of its `saes`."),
    ] = None
    max_act: Annotated[
        FiniteFloat | None, Field(strict=True, gt=0, description="The feature's maximum, for `max_act`.")
    ] = None
    label: Annotated[str | None, Field(max_length=500, description="What the feature seems to mean.")] = None
    color: Annotated[str | None, Field(max_length=32, description="How it is drawn: a name or `#rrggbb`.")] = None

    def setting(self) -> FeatureSetting:
        return FeatureSetting(
            index=self.index,
            strength=self.strength,
            unit=self.unit,
            mode=self.mode,
            sae=self.sae,
            max_act=self.max_act,
        )


class SteeringRequest(_FrozenModel):
    """`steering` in a request's body, and the core of a profile."""

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


class ModelReference(_FrozenModel):
    """The model that a profile was made on."""

    repo_id: Annotated[str, Field(min_length=1, max_length=512, description="A Hugging Face id, or a local name.")]
    revision: Annotated[str | None, Field(max_length=128, description="A branch, a tag or a commit.")] = None
    quantization: Annotated[str | None, Field(max_length=64, description="How it was loaded then: a hint.")] = None


class SaeReference(_FrozenModel):
    """An SAE that a profile steers. What is stated has to be so of the SAE that is attached; the rest is not asked."""

    name: Annotated[
        str | None, Field(min_length=1, max_length=512, description="What `features` call it; default: its `repo_id`.")
    ] = None
    repo_id: Annotated[str | None, Field(min_length=1, max_length=512, description="A Hugging Face id.")] = None
    path: Annotated[str | None, Field(max_length=512, description="Folder or file inside the repository.")] = None
    revision: Annotated[str | None, Field(max_length=128)] = None
    sha256: Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$", description="Of its weights.")] = None
    layer: Annotated[int | None, Field(ge=0, le=10_000, strict=True)] = None
    hook_point: Annotated[
        str | None, Field(max_length=128, description="As SAELens names it: `blocks.20.hook_resid_post`.")
    ] = None
    width: Annotated[int | None, Field(ge=1, strict=True, description="Features in its dictionary.")] = None
    reference_norm: Annotated[
        FiniteFloat | None, Field(strict=True, gt=0, description="The residual norm there, for `unit: norm`.")
    ] = None

    @property
    def alias(self) -> str | None:
        """By the profile's features."""
        return self.name or self.repo_id


class WatchedFeature(_FrozenModel):
    """A feature to watch while the profile is in use."""

    index: Index
    sae: Annotated[str | None, Field(max_length=512, description="As in `features`.")] = None
    label: ShortText | None = None


class Provenance(_FrozenModel):
    """Where a profile comes from."""

    source: Annotated[str, Field(max_length=64, description="A tool: `millm`, `mistudio`, `neuronpedia`, …")]
    format: Annotated[str | None, Field(max_length=64, description="Which of its formats.")] = None
    id: Annotated[str | None, Field(max_length=512, description="What it is called there.")] = None
    url: Annotated[str | None, Field(max_length=2000)] = None
    created: datetime | None = None
    note: Annotated[str | None, Field(max_length=2000, description="What its import changed or left out.")] = None


ModelName = Annotated[str, Field(min_length=1, max_length=512)]


def _model_reference(value: Any) -> Any:
    """A model's name alone is enough."""
    return {"repo_id": value} if isinstance(value, str) else value


class Profile(SteeringRequest):
    """A steering with a name, and all that is needed to apply it elsewhere exactly as here."""

    version: Literal["1"] = VERSION
    name: ProfileName
    description: Annotated[str, Field(max_length=2000)] = ""
    model: Annotated[
        ModelReference | None,
        BeforeValidator(_model_reference, json_schema_input_type=ModelReference | ModelName | None),
    ] = None
    saes: Annotated[tuple[SaeReference, ...], Field(max_length=MAX_SAES)] = ()
    """None: whatever is attached, by the names that `features` use."""
    features: Annotated[tuple[ProfileFeature, ...], FailFast(), Field(max_length=MAX_FEATURES)] = ()
    watch: Annotated[tuple[WatchedFeature, ...], Field(max_length=128)] = ()
    example_prompts: Annotated[tuple[Annotated[str, Field(max_length=4000)], ...], Field(max_length=50)] = ()
    tags: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=50)] = ()
    provenance: Provenance | None = None

    @model_validator(mode="after")
    def _check_feature_saes(self) -> "Profile":
        names = [sae.alias for sae in self.saes]
        if len(set(names)) < len(names) or (len(names) > 1 and None in names):
            raise PydanticCustomError("saes_alike", "Several `saes` need a `name` each, no two the same")
        used = [(one.index, one.sae) for one in self.features] + [(one.index, one.sae) for one in self.watch]
        for index, sae in used if names else ():
            if sae is None and len(names) > 1:
                raise PydanticCustomError(
                    "sae_missing", "Feature {index}: say which of `saes` is meant", {"index": index}
                )
            if sae not in (None, *names):
                raise PydanticCustomError(
                    "sae_unknown", "Feature {index}: `saes` has none of that name", {"index": index}
                )
        return self

    @property
    def steering(self) -> SteeringRequest:
        """Without all that only a profile has."""
        return SteeringRequest(**{name: getattr(self, name) for name in SteeringRequest.model_fields})


class ActivationsRequest(_FrozenModel):
    """`activations` in a request's body: which features to report, at which tokens."""

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
    when: Annotated[
        Literal["before", "after", "both"],
        Field(description="Relative to steering; `both` adds `after` to each token."),
    ] = "before"
    sae: str | None = None


MAX_ACTIVATIONS = 8


def _validate_one_or_list(value: Any, validate_list: ValidatorFunctionWrapHandler) -> Any:
    return validate_list(value) if isinstance(value, list) else [ActivationsRequest.model_validate(value)]


ActivationsField = Annotated[
    list[ActivationsRequest],
    Field(min_length=1, max_length=MAX_ACTIVATIONS),
    WrapValidator(
        _validate_one_or_list,
        json_schema_input_type=ActivationsRequest
        | Annotated[list[ActivationsRequest], Field(min_length=1, max_length=MAX_ACTIVATIONS)],
    ),
]
"""`activations` in a request's body: one such object, or a list with one for each of several SAEs."""
