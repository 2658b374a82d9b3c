"""What a chat asks the server for."""

from millm.cli.chat import Conversation, parse_features
from millm.protocol.request import ChatRequest


def asked(conversation: Conversation) -> ChatRequest:
    """The request, as the server reads it."""
    return ChatRequest.model_validate(conversation.request_body("And now?"))


PLAIN = Conversation("m", {"temperature": 0.5, "max_tokens": 7})


def test_a_request_that_leaves_steering_to_the_server() -> None:
    request = asked(PLAIN)
    assert (request.model, request.temperature, request.token_limit) == ("m", 0.5, 7)
    assert (request.profile, request.steering_given) == (None, False)


def test_what_was_said_comes_in_turn_behind_the_instructions() -> None:
    conversation = Conversation("m", {}, system="Be brief.").with_turn("Hi", "Hello").with_turn("More", "No")
    said = [(message.role, message.content) for message in asked(conversation).messages]
    assert [role for role, _ in said] == ["system", "user", "assistant", "user", "assistant", "user"]
    texts = [part["text"] for _, content in said for part in content or ()]
    assert texts == ["Be brief.", "Hi", "Hello", "More", "No", "And now?"]


def test_a_profile() -> None:
    request = asked(Conversation("m", {}, steering="push"))
    assert (request.profile, request.steering_given) == ("push", False)


def test_features() -> None:
    knobs = parse_features("11 80 12 0.5 norm 13@deep ablate")
    steering = asked(Conversation("m", {}, steering=knobs)).steering
    assert steering is not None
    assert tuple(feature.setting() for feature in steering.features) == knobs


def test_the_base_model() -> None:
    request = asked(Conversation("m", {}, steering=()))
    assert (request.steering, request.steering_given) == (None, True)
