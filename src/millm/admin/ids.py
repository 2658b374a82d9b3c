"""A public id as clients send it: a name, never a path. Whether there is such a thing, the library says."""

from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_ID_LENGTH = 512
"""Characters: `owner/name/path/inside@revision`."""


def _check_id(text: str) -> str:
    if not text.isprintable() or "\\" in text:
        raise ValueError("it cannot hold control characters or backslashes")
    if text.startswith(("/", "~")) or text != text.strip():
        raise ValueError("it is a name such as `owner/name`, not a path")
    if ".." in text.partition("@")[0].split("/"):
        raise ValueError("it cannot hold `..`")
    return text


def _check_revision(text: str) -> str:
    if ".." in text:
        raise ValueError("it cannot hold `..`")
    return text


PublicId = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH), AfterValidator(_check_id)]
PathId = Annotated[PublicId, Path()]
Revision = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9._\-/]+$"), AfterValidator(_check_revision)]


class StrictBody(BaseModel):
    """Of a request: what it does not name is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Download(StrictBody):
    """A repository of Hugging Face's."""

    id: Annotated[PublicId, Field(description="`owner/name`; of an SAE `owner/name/path/inside`.")]
    revision: Annotated[Revision, Field(description="A branch, a tag or a commit.")] = "main"
