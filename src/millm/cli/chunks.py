"""A streamed answer as it comes over HTTP: server-sent events, and what is in each. Knows no connection."""

from collections.abc import Iterable, Iterator

import msgspec

from millm.errors import Unavailable, error_from_code


class ChunkReceipt(msgspec.Struct, frozen=True):
    """The steering that an answer got; `steering` is its fingerprint, None for the base model."""

    profile: str | None = None
    steering: str | None = None
    tokens_steered: int = 0
    delta_norm_ratio: float = 0.0


class ChunkDelta(msgspec.Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None
    """Where another server tells thinking apart."""

    @property
    def text(self) -> str:
        return self.content or self.reasoning_content or ""


class ChunkChoice(msgspec.Struct, frozen=True):
    delta: ChunkDelta = ChunkDelta()
    finish_reason: str | None = None


class ChunkUsage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int


class ServerErrorInfo(msgspec.Struct, frozen=True):
    message: str
    code: str | int | None = None
    """A number on some other servers."""


class AnswerChunk(msgspec.Struct, frozen=True):
    """One event of a streamed answer."""

    choices: tuple[ChunkChoice, ...] = ()
    usage: ChunkUsage | None = None
    millm: ChunkReceipt | None = None
    error: ServerErrorInfo | None = None


def parse_sse_data(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The data of server-sent events of one line each, up to `[DONE]`; comments are skipped.

    Splits at line feeds only: a text may hold U+2028, at which `iter_lines` would cut it in two.
    """
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip() == b"data: [DONE]":
                return
            if line.startswith(b"data:"):
                yield line[5:].strip()


def decode_chunk(event: bytes) -> AnswerChunk:
    try:
        chunk = msgspec.json.decode(event, type=AnswerChunk)
    except msgspec.DecodeError as error:
        raise Unavailable(f"the server sent something that is no part of an answer ({error})") from error
    if chunk.error:
        raise error_from_code(str(chunk.error.code), chunk.error.message)
    return chunk
