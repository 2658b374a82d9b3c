"""The profile schema: a named steering as a JSON document (docs/profiles.md), and the rules for profile names."""

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
"""Invisible characters that change the direction of text."""


def validate_name(name: str) -> str:
    """The name in Unicode's composed form (NFC). Raises ValueError."""
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
    """Comparison key: ignores case and Unicode composition."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def numbered_names(name: str) -> Iterator[str]:
    """`name`, `name (2)`, `name (3)`, …, within the length limit; `name (2)` is followed by `name (3)`."""
    yield name
    plain = re.sub(r" \([1-9]\d*\)$", "", name)
    for number in count(2):
        ending = f" ({number})"
        yield plain[: MAX_NAME_LENGTH - len(ending)] + ending


def split_sae_id(sae_id: str) -> tuple[str | None, str | None, str | None]:
    """(repository, path inside, revision) of `owner/name/path@revision`; all None for a local name."""
    path, _, revision = sae_id.partition("@")
    owner, *rest = path.split("/")
    if not rest:
        return None, None, None
    return f"{owner}/{rest[0]}", "/".join(rest[1:]) or None, revision or None


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
    strength: Annotated[FiniteFloat, Field(strict=True, description="The amount, in `unit`.")] = 0.0
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
    """None: `special` where the activations of an SAE trained without special tokens are read, else `bos`."""
    skip_constrained: Annotated[
        bool,
        Field(strict=True, description="No steering while a JSON schema or a forced tool call decides the tokens."),
    ] = False
    reference_norm: Annotated[FiniteFloat | None, Field(strict=True, gt=0)] = None
    """The residual norm of `unit: norm`; default: as measured at attach."""


class ModelReference(_FrozenModel):
    """The model that a profile is for."""

    repo_id: Annotated[str, Field(min_length=1, max_length=512, description="A Hugging Face id, or a local name.")]
    revision: Annotated[str | None, Field(max_length=128, description="A branch, a tag or a commit.")] = None
    quantization: Annotated[str | None, Field(max_length=64, description="How it was loaded then: a hint.")] = None


class SaeReference(_FrozenModel):
    """An SAE that a profile steers. Stated properties must match the attached SAE; omitted ones match any."""

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
        """The SAE's name in the profile's features."""
        return self.name or self.repo_id


class WatchedFeature(_FrozenModel):
    """A feature to watch while the profile is in use."""

    index: Index
    sae: Annotated[str | None, Field(max_length=512, description="As in `features`.")] = None
    label: ShortText | None = None


class Provenance(_FrozenModel):
    """The origin of a profile."""

    source: Annotated[str, Field(max_length=64, description="A tool: `millm`, `mistudio`, `neuronpedia`, …")]
    format: Annotated[str | None, Field(max_length=64, description="Which of its formats.")] = None
    id: Annotated[str | None, Field(max_length=512, description="What it is called there.")] = None
    url: Annotated[str | None, Field(max_length=2000)] = None
    created: datetime | None = None
    note: Annotated[str | None, Field(max_length=2000, description="What its import changed or left out.")] = None


ModelName = Annotated[str, Field(min_length=1, max_length=512)]


def _model_reference(value: Any) -> Any:
    """Accept a model's name in place of the object."""
    return {"repo_id": value} if isinstance(value, str) else value


class Profile(SteeringRequest):
    """A named steering, with everything needed to apply it exactly on another server."""

    version: Literal["1"] = VERSION
    name: ProfileName
    description: Annotated[str, Field(max_length=2000)] = ""
    model: Annotated[
        ModelReference | None,
        BeforeValidator(_model_reference, json_schema_input_type=ModelReference | ModelName | None),
    ] = None
    saes: Annotated[tuple[SaeReference, ...], Field(max_length=MAX_SAES)] = ()
    """Empty: the attached SAEs, by the names in `features`."""
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
        """The fields that a request's `steering` has."""
        return SteeringRequest(**{name: getattr(self, name) for name in SteeringRequest.model_fields})


class ActivationsRequest(_FrozenModel):
    """`activations` in a request's body: which features to report, at which tokens."""

    features: Annotated[tuple[Annotated[int, Field(ge=0, strict=True)], ...], FailFast(), Field(max_length=128)] = ()
    top_k: Annotated[
        int,
        Field(ge=0, le=100, strict=True, description="Also this many of the most active features of the dictionary."),
    ] = 0
    sample_every: Annotated[
        int | None,
        Field(ge=1, le=1000, strict=True, description="Read `top_k` at positions that are a multiple of this."),
    ] = None
    """None: the rate with little overhead, as measured at attach."""
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
"""`activations` in a request's body: one object, or a list with one per SAE."""
