"""Request bodies of a conversation, as the server parses them."""

from millm.cli.chat import Conversation, parse_features
from millm.protocol.request import ChatRequest


def parsed_request(conversation: Conversation) -> ChatRequest:
    return ChatRequest.model_validate(conversation.request_body("And now?"))


PLAIN = Conversation("m", {"temperature": 0.5, "max_tokens": 7})


def test_a_request_without_steering() -> None:
    request = parsed_request(PLAIN)
    assert (request.model, request.temperature, request.token_limit) == ("m", 0.5, 7)
    assert (request.profile, request.steering_given) == (None, False)


def test_turns_follow_the_system_prompt_in_order() -> None:
    conversation = Conversation("m", {}, system="Be brief.").with_turn("Hi", "Hello").with_turn("More", "No")
    turns = [(message.role, message.content) for message in parsed_request(conversation).messages]
    assert [role for role, _ in turns] == ["system", "user", "assistant", "user", "assistant", "user"]
    texts = [part["text"] for _, content in turns for part in content or ()]
    assert texts == ["Be brief.", "Hi", "Hello", "More", "No", "And now?"]


def test_a_profile() -> None:
    request = parsed_request(Conversation("m", {}, steering="push"))
    assert (request.profile, request.steering_given) == ("push", False)


def test_features() -> None:
    features = parse_features("11 80 12 0.5 norm 13@deep ablate")
    steering = parsed_request(Conversation("m", {}, steering=features)).steering
    assert steering is not None
    assert tuple(feature.setting() for feature in steering.features) == features


def test_the_base_model() -> None:
    request = parsed_request(Conversation("m", {}, steering=()))
    assert (request.steering, request.steering_given) == (None, True)
