"""Client families by headers, and background tasks by the first words of Open WebUI's prompts."""

import pytest

from millm.errors import InvalidRequest
from millm.monitoring.clients import identify_client


@pytest.mark.parametrize(
    ("agent", "client"),
    [
        ("OpenAI/Python 3.1.0", "openai-python"), ("AsyncOpenAI/Python 2.0", "openai-python"),
        ("OpenAI/JS 6.1", "openai-node"), ("curl/8.5.0", "curl"), ("Mozilla/5.0 (X11)", "browser"),
        ("Python/3.11 aiohttp/3.13", "aiohttp"), ("LibreChat/0.8", "librechat"), ("", "other"), ("(;)", "other"),
    ],
)  # fmt: skip
def test_client_families(agent: str, client: str) -> None:
    assert identify_client({"user-agent": agent}) == (client, None)


@pytest.mark.parametrize(
    ("prompt", "task"),
    [
        ("### Task:\nGenerate a concise title summarizing the chat history.", "title_generation"),
        ("### Task:\nGenerate 1-3 broad tags categorizing", "tags_generation"),
        ("### Task:\nPredict 3-5 useful messages this user might", "follow_up_generation"),
        ("### Task:\nSuggest 3-5 relevant follow-up questions", "follow_up_generation"),
        ("### Task:\nYou are an autocompletion system.", "autocomplete_generation"),
        ("### Task:\nRespond to the user query using the provided context", None),
        ("Generate a concise title", None),
        ("", None),
    ],
)
def test_background_tasks(prompt: str, task: str | None) -> None:
    identified = identify_client({"user-agent": "Python/3.11 aiohttp/3.13"}, prompt)
    assert identified == ("open-webui" if task else "aiohttp", task)


def test_headers_override_prompt_detection() -> None:
    headers = {"user-agent": "curl/8", "x-openwebui-user-id": "1", "x-millm-task": "emoji_generation"}
    assert identify_client(headers, "### Task:\nGenerate a concise title") == ("open-webui", "emoji_generation")
    assert identify_client({**headers, "x-millm-task": ""})[1] is None
    assert identify_client({**headers, "x-millm-source": "my lab: 3"})[0] == "my lab: 3"


@pytest.mark.parametrize("tag", ["a\x01", "é", "x" * 65, "<b>"])
def test_invalid_tag_is_rejected(tag: str) -> None:
    with pytest.raises(InvalidRequest, match="x-millm-source"):
        identify_client({"x-millm-source": tag})
