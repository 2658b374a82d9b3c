"""What is told of a request: who asked, what came of it, what was watched. Plain values."""

from typing import Literal

import msgspec

EndReason = Literal["stop", "length", "tool_calls", "embedded", "cancelled", "failed"]


class RequestSource(msgspec.Struct, frozen=True, kw_only=True):
    """Who asked, as far as the request says so."""

    client: str
    """Its family (`openai-python`, `open-webui`, `curl`, …), or what it calls itself in `X-Millm-Source`."""
    task: str | None = None
    """What a chat client does behind the chat, as Open WebUI names it: `title_generation`, …"""


class WatchedSae(msgspec.Struct, frozen=True, kw_only=True):
    """What the history has of one SAE."""

    sae: str
    features: tuple[int, ...]
    top_k: int
    tokens: int
    """At so many it was read."""


class OpenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that is being answered, or waits for that."""

    id: str
    endpoint: str
    model: str
    profile: str | None
    client: str
    task: str | None
    began: float
    """Unix time, in seconds."""
    seconds: float
    """Since then."""
    first_token_seconds: float | None
    """None: nothing is written yet: it waits, or its prompt is read."""
    streamed: bool
    choices: int
    prompt_tokens: int


class RequestRow(msgspec.Struct, frozen=True, kw_only=True):
    """A request that has ended, without its activations."""

    id: str
    """The answer's `id`; embeddings have one of their own."""
    endpoint: str
    model: str
    profile: str | None
    client: str
    task: str | None
    began: float
    """Unix time, in seconds."""
    seconds: float
    """From when the request was understood until its last token."""
    first_token_seconds: float | None
    streamed: bool
    end: EndReason
    """`cancelled`: the client went before the end."""
    error: str | None = None
    """The error's code, where it failed."""
    choices: int
    """Answers that were written, or inputs that were embedded."""
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    steering: str | None
    """Fingerprint of the steering that it got, by its receipt."""
    tokens_steered: int
    delta_norm_ratio: float
    degraded: str | None
    watched: tuple[WatchedSae, ...] = ()
    is_cut: bool = False
    """There was more to remember than the history has room for."""
