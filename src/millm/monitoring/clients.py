"""Identifies the client family of a request, and the background task of a chat client.

Open WebUI 0.12.4 removes its `metadata` (with the task) from what it forwards, and names the task only in a header that
its user adds to the connection, `X-Millm-Task: {{TASK}}`. Without it, the first words of its own prompts (`config.py`)
identify the task. `X-OpenWebUI-…` headers come with ENABLE_FORWARD_USER_INFO_HEADERS.
"""

import re
from collections.abc import Mapping

from millm.errors import InvalidRequest

SOURCE_HEADER = "x-millm-source"
TASK_HEADER = "x-millm-task"
_TAG_PATTERN = re.compile(r"[\w .:-]{1,64}", re.ASCII)
_CLIENT_FAMILIES = (
    ("asyncopenai/python", "openai-python"),
    ("openai/python", "openai-python"),
    ("openai/js", "openai-node"),
    ("asyncopenai/js", "openai-node"),
    ("curl/", "curl"),
    ("python-requests/", "python-requests"),
    ("python-httpx/", "python-httpx"),
    ("node", "node"),
    ("mozilla/", "browser"),
)
"""Prefix of the User-Agent in lower case → family."""
_TASK_MARK = "### Task:"
_MARKED_TASKS = (
    ("Generate a concise", "title_generation"),
    ("Generate 1-3 broad tags", "tags_generation"),
    ("Predict 3-5 useful messages", "follow_up_generation"),
    ("Suggest 3-5 relevant follow-up", "follow_up_generation"),
    ("Generate a detailed prompt for am image", "image_prompt_generation"),
    ("Analyze the chat history to determine the necessity", "query_generation"),
    ("You are an autocompletion system", "autocomplete_generation"),
)
"""Text behind the mark → task. A chat about documents has the mark as well and is no task."""
_UNMARKED_TASKS = (
    ("Your task is to reflect the speaker's likely facial expression", "emoji_generation"),
    ("You have been provided with a set of responses from various models", "moa_response_generation"),
)


def identify_client(headers: Mapping[str, str], prompt: str = "") -> tuple[str, str | None]:
    """Return client and task. `headers` in lower case; `prompt`: the last message. Raises InvalidRequest for a tag
    that is not allowed.
    """
    task = _read_tag(headers, TASK_HEADER) or _detect_task(prompt)
    client = _read_tag(headers, SOURCE_HEADER) or _client_family(headers)
    is_behind_a_chat = task is not None and TASK_HEADER not in headers and client in ("aiohttp", "other")
    return ("open-webui" if is_behind_a_chat else client), task


def _read_tag(headers: Mapping[str, str], name: str) -> str | None:
    """The header's value, or None where it is empty, as Open WebUI sends it with a message of the chat."""
    tag = headers.get(name, "").strip()
    if tag and not _TAG_PATTERN.fullmatch(tag):
        raise InvalidRequest(
            f"The header `{name}` accepts up to 64 letters, digits, blanks and any of `.:-_`.", param=name
        )
    return tag or None


def _client_family(headers: Mapping[str, str]) -> str:
    if any(name.startswith("x-openwebui-") for name in headers):
        return "open-webui"
    agent = headers.get("user-agent", "").lower()
    if "aiohttp/" in agent:
        return "aiohttp"
    return _match_prefix(agent, _CLIENT_FAMILIES) or _product_name(agent)


def _product_name(agent: str) -> str:
    """`tool/1.2 (…)` → `tool`."""
    name = agent.partition("/")[0].strip()
    return name if _TAG_PATTERN.fullmatch(name) else "other"


def _detect_task(prompt: str) -> str | None:
    start = prompt[:500].lstrip()
    if not start.startswith(_TASK_MARK):
        return _match_prefix(start, _UNMARKED_TASKS)
    return _match_prefix(start.removeprefix(_TASK_MARK).lstrip(), _MARKED_TASKS)


def _match_prefix(text: str, prefixes: tuple[tuple[str, str], ...]) -> str | None:
    return next((name for prefix, name in prefixes if text.startswith(prefix)), None)
