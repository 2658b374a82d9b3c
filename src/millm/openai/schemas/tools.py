"""`tools`, `functions` and earlier calls in the body of `/v1/chat/completions`."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from millm.openai.schemas.common import RequestModel

Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
"""OpenAI's, for functions and for schemas."""


class OfferedFunction(RequestModel):
    name: Name
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    strict: bool = False


class Tool(RequestModel):
    type: Literal["function"]
    function: OfferedFunction


class CalledFunction(RequestModel):
    name: str
    arguments: Any = "{}"


class ToolCall(RequestModel):
    id: str | None = None
    function: CalledFunction
