"""A function that a model may call, as a client describes it; knows nothing about how calls are written."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Function:
    """One function of `tools`."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    """A JSON schema of its arguments; {}: it takes none."""

    @property
    def schema(self) -> dict[str, Any]:
        """What its arguments have to be: always an object."""
        if not self.parameters:
            return {"type": "object", "properties": {}, "additionalProperties": False}
        return {**self.parameters, "type": "object"}

    def as_tool(self) -> dict[str, Any]:
        """As chat templates expect an entry of `tools`."""
        told = {"name": self.name, "description": self.description, "parameters": self.schema}
        return {"type": "function", "function": told}
