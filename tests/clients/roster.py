"""The clients and their features, for `test_features.py` and docs/compatibility.md."""

import json
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent

FEATURES = {
    "models": "lists the model and its profiles",
    "chat": "a chat is answered",
    "streaming": "a chat is streamed",
    "profile": "`model:profile` is steered",
    "usage": "tokens are counted",
    "completions": "a prompt is continued",
    "tools": "a forced tool is called",
    "streamed_tools": "a forced tool is called in a stream",
    "tool_results": "a tool's result is answered",
    "structured": "an answer obeys a schema",
    "embeddings": "texts become vectors",
    "responses": "`/v1/responses` answers",
    "streamed_responses": "`/v1/responses` is streamed",
    "structured_responses": "an answer of `/v1/responses` obeys a schema",
    "unknown_model": "an unknown model is the client's own error",
    "too_long": "a prompt that is too long is the client's own error",
}
"""Name → meaning; each is a test of that name."""

TALKING = ("chat", "streaming", "profile", "usage")
CALLING = ("tools", "streamed_tools", "tool_results", "structured")
RESPONDING = ("responses", "streamed_responses", "structured_responses")
FAILING = ("unknown_model", "too_long")


@dataclass(frozen=True)
class Client:
    """A client in its published version."""

    name: str
    package: str
    environment: str
    """`node`, or the name of a file of pins."""
    script: str
    features: tuple[str, ...]
    errors: dict[str, str] = field(default_factory=dict, hash=False)
    """Feature → the class that the client raises, or the first words of a command."""

    @property
    def path(self) -> Path:
        folder = "node" if self.environment == "node" else "python"
        return HERE / folder / self.script

    @property
    def version(self) -> str:
        return pinned(self.environment, self.package)


def pinned(environment: str, package: str) -> str:
    """The version of a package that is installed there."""
    if environment == "node":
        packages: dict[str, str] = json.loads((HERE / "node" / "package.json").read_text("utf-8"))["dependencies"]
        return packages[package]
    pins = (HERE / "pins" / f"{environment}.txt").read_text("utf-8").splitlines()
    return next(pin.removeprefix(f"{package}==") for pin in pins if pin.startswith(f"{package}=="))


CLIENTS = (
    Client(
        "openai-python", "openai", "openai", "ask_openai.py",
        ("models", *TALKING, "completions", *CALLING, "embeddings", *RESPONDING, *FAILING),
        {"unknown_model": "NotFoundError", "too_long": "BadRequestError"},
    ),
    Client(
        "openai-python, async", "openai", "openai", "ask_openai_async.py",
        ("models", *TALKING, *CALLING, "embeddings", "responses", "streamed_responses", *FAILING),
        {"unknown_model": "NotFoundError", "too_long": "BadRequestError"},
    ),
    Client(
        "LangChain", "langchain-openai", "python", "ask_langchain.py",
        (*TALKING, *CALLING, "embeddings", *RESPONDING, *FAILING),
        {"unknown_model": "OpenAIModelNotFoundError", "too_long": "OpenAIContextOverflowError"},
    ),
    Client(
        "LiteLLM", "litellm", "python", "ask_litellm.py",
        (*TALKING, "completions", *CALLING, "embeddings", "responses", *FAILING),
        {"unknown_model": "NotFoundError", "too_long": "ContextWindowExceededError"},
    ),
    Client(
        "LlamaIndex", "llama-index-llms-openai-like", "python", "ask_llama_index.py",
        (*TALKING, "completions", *CALLING, "embeddings", *FAILING),
        {"unknown_model": "NotFoundError", "too_long": "BadRequestError"},
    ),
    Client(
        "llm", "llm", "python", "ask_llm.py", (*TALKING, "structured", *FAILING),
        {"unknown_model": "Error: Error code: 404", "too_long": "Error: Error code: 400"},
    ),
    Client("instructor, tools", "instructor", "python", "ask_instructor.py", ("structured",)),
    Client("instructor, JSON schema", "instructor", "python", "ask_instructor_json.py", ("structured",)),
    Client(
        "openai-node", "openai", "node", "openai.mjs",
        ("models", *TALKING, "completions", *CALLING, "embeddings", *RESPONDING, *FAILING),
        {"unknown_model": "NotFoundError", "too_long": "BadRequestError"},
    ),
    Client(
        "AI SDK, openai-compatible", "@ai-sdk/openai-compatible", "node", "ai_compatible.mjs",
        (*TALKING, "completions", *CALLING, "embeddings", *FAILING),
        {"unknown_model": "APICallError", "too_long": "APICallError"},
    ),
    Client(
        "AI SDK, openai", "@ai-sdk/openai", "node", "ai_openai.mjs", (*TALKING, *CALLING, *FAILING),
        {"unknown_model": "APICallError", "too_long": "APICallError"},
    ),
    Client(
        "AI SDK, openai `.chat()`", "@ai-sdk/openai", "node", "ai_openai_chat.mjs",
        (*TALKING, *CALLING, "embeddings", *FAILING),
        {"unknown_model": "APICallError", "too_long": "APICallError"},
    ),
    Client("LibreChat agents", "@librechat/agents", "node", "librechat.mjs", ("streaming", "profile", "usage")),
)  # fmt: skip


def having(feature: str) -> list[Client]:
    return [client for client in CLIENTS if feature in client.features]
