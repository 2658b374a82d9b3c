"""A conversation as a frozen value: what was said, and how the next answer is steered. Knows no server."""

from dataclasses import dataclass, replace

import msgspec

from millm.cli.knobs import FeatureSettings, describe_features


@dataclass(frozen=True)
class Conversation:
    model: str
    sampling: dict[str, object]
    """Fields of a request, such as `temperature`."""
    system: str | None = None
    steering: str | FeatureSettings | None = None
    """A profile's name; features, none of which is the base model; or None: as the server has it."""
    turns: tuple[tuple[str, str], ...] = ()
    """(role, text), the user's and the assistant's in turn."""

    def request_body(self, prompt: str) -> dict[str, object]:
        """The request for the next answer."""
        said = [*((("system", self.system),) if self.system else ()), *self.turns, ("user", prompt)]
        messages = [{"role": role, "content": text} for role, text in said]
        return {"model": self.model, "messages": messages, **self.sampling, **_steering_fields(self.steering)}

    def with_turn(self, prompt: str, answer: str) -> "Conversation":
        return replace(self, turns=(*self.turns, ("user", prompt), ("assistant", answer)))

    @property
    def steering_text(self) -> str:
        """The steering in words."""
        match self.steering:
            case None:
                return "as the server has it"
            case str():
                return f"profile {self.steering}"
            case ():
                return "off: the base model"
            case knobs:
                return f"features {describe_features(knobs)}"


def _steering_fields(steering: str | FeatureSettings | None) -> dict[str, object]:
    match steering:
        case None:
            return {}
        case str():
            return {"profile": steering}
        case ():
            return {"steering": None}
        case knobs:
            return {"steering": {"features": msgspec.to_builtins(knobs)}}
