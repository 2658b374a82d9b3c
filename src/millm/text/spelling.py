"""Which bytes a token stands for, read off the tokenizer's own decoder; knows nothing about ids or prompts.

Working in bytes makes decoding local: the text of a sequence is its tokens' bytes, joined and read as UTF-8. So a
stream never has to decode a token twice, and it equals decoding everything at once. (The library's `DecodeStream`
compares texts instead, and raises "Invalid prefix" on byte-fallback tokens that are not valid UTF-8 together.)
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec
import tokenizers

from millm.errors import InvalidModel

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _build_byte_alphabet() -> dict[str, int]:
    """The 256 letters that byte-level BPE writes bytes with (openai/gpt-2, `bytes_to_unicode`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    moved = {chr(256 + place): byte for place, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | moved


_BYTE_ALPHABET = _build_byte_alphabet()


@dataclass(frozen=True)
class TokenByteDecoder:
    """How a vocabulary writes text."""

    byte_level: bool = False
    """Every letter of a token is one byte (GPT-2, Llama-3, Qwen, SmolLM2)."""
    byte_fallback: bool = False
    """`<0xE2>` is that byte (Llama-2, Gemma)."""
    space: str = ""
    """The letter that stands for a space, usually ▁."""
    fused: bool = False
    """The tokens have become one string, so that what follows works on the whole text."""
    leading_spaces: int = 0
    """Spaces dropped at the very start of a text."""

    def token_to_bytes(self, token: str) -> bytes:
        text = token.replace(self.space, " ") if self.space else token
        if self.byte_fallback and (byte := _BYTE_TOKEN.fullmatch(text)):
            return bytes.fromhex(byte[1])
        if self.byte_level and all(letter in _BYTE_ALPHABET for letter in text):
            return bytes(_BYTE_ALPHABET[letter] for letter in text)
        return text.encode()

    def trim_leading_spaces(self, data: bytes) -> bytes:
        """The bytes of a whole text without the leading spaces that the decoder drops."""
        spaces = len(data) - len(data.lstrip(b" "))
        return data[min(spaces, self.leading_spaces) :]


def read_byte_decoder(decoder: tokenizers.decoders.Decoder | None) -> TokenByteDecoder:
    """Raises InvalidModel, naming the step, for a decoder whose bytes we cannot tell exactly."""
    if decoder is None:
        raise InvalidModel("the model's tokenizer.json has no decoder, so its tokens cannot be turned into text")
    spelling = TokenByteDecoder()
    for step in _decoder_steps(msgspec.json.decode(decoder.__getstate__(), type=dict[str, object])):
        spelling = _apply_decoder_step(spelling, step)
    return spelling


def read_byte_decoder_or_default(decoder: tokenizers.decoders.Decoder | None) -> TokenByteDecoder:
    """For people to read: the vocabulary's own letters where the decoder's bytes cannot be told."""
    try:
        return read_byte_decoder(decoder)
    except InvalidModel:
        return TokenByteDecoder()


def _decoder_steps(decoder: Mapping[str, object]) -> list[Mapping[str, object]]:
    if decoder["type"] != "Sequence":
        return [decoder]
    nested = msgspec.convert(decoder["decoders"], list[dict[str, object]])
    return [step for child in nested for step in _decoder_steps(child)]


def _apply_decoder_step(byte_decoder: TokenByteDecoder, step: Mapping[str, object]) -> TokenByteDecoder:
    match step:
        case {"type": "ByteLevel"}:
            return replace(byte_decoder, byte_level=True, fused=True)
        case {"type": "ByteFallback"}:
            return replace(byte_decoder, byte_fallback=True)
        case {"type": "Fuse"}:
            return replace(byte_decoder, fused=True)
        case {"type": "Replace", "pattern": {"String": str(letter)}, "content": " "}:
            return replace(byte_decoder, space=letter)
        case {"type": "Metaspace", "replacement": str(letter), "prepend_scheme": scheme}:
            return replace(byte_decoder, space=letter, leading_spaces=0 if scheme == "never" else 1)
        case {"type": "Strip", "content": " ", "start": int(start), "stop": 0} if byte_decoder.fused:
            return replace(byte_decoder, leading_spaces=start)
    raise InvalidModel(
        f"the model's tokenizer.json decodes with the step {step['type']!r} as we cannot; "
        "byte-level, byte-fallback and metaspace tokenizers work"
    )
