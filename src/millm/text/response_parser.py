"""Parse answers with the checkpoint's response template: reasoning, text and tool calls.

Format and parser are transformers' own (`utils/chat_parsing`), imported only for a model with such a template, which
costs 0.7 s and 26 MB, without torch (docs/decisions/0011-response-templates-by-the-library.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec
import structlog

from millm.text.chat_template import Function
from millm.text.model_folder import read_json
from millm.text.tool_calls import ParsedCallDelta, ParsedDelta

log = structlog.get_logger()
_REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
_PARSER_FAILURES = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""Exceptions of the library for text that does not match the template, or for an invalid template."""
ParserEvent = dict[str, Any]


class TransformersParser(Protocol):
    """The part of transformers' ResponseParser that is used here."""

    def feed(self, text: str) -> list[ParserEvent]: ...

    def finalize(self) -> tuple[dict[str, Any], list[ParserEvent]]: ...


@dataclass(frozen=True)
class ResponseTemplate:
    """One model's response template."""

    source_text: str
    """The template as text without backslashes, to find the special tokens that the detokenizer must show."""
    _parser_factory: Callable[..., TransformersParser]
    _spec: dict[str, Any]

    @classmethod
    def from_folder(cls, folder: Path) -> Self | None:
        """None when the model has no template, or one that transformers does not support, which is logged."""
        spec = read_json(folder, "tokenizer_config.json").get("response_template")
        if not isinstance(spec, dict):
            return None
        parser = _import_parser()
        try:
            parser(spec, prefix="")
        except _PARSER_FAILURES as error:
            log.warning("model.response_template_ignored", reason=str(error)[:200])
            return None
        return cls(msgspec.json.encode(spec).decode().replace("\\", ""), parser, spec)

    def create_parser(self, prompt: str, functions: Sequence[Function], *, parallel: bool) -> "ResponseTemplateParser":
        """`prompt`: the rendered prompt; the answer's message may start within it."""
        parser = self._parser_factory(self._spec, prefix=prompt, tools=[function.as_tool() for function in functions])
        return ResponseTemplateParser(parser, {function.name for function in functions}, parallel=parallel)


def _import_parser() -> Callable[..., TransformersParser]:
    from transformers.utils.chat_parsing import ResponseParser  # noqa: PLC0415  only for models that need it

    return ResponseParser


class ResponseTemplateParser:
    """Parses one answer. A call is emitted once it is complete and valid.

    Text that does not become a call of a known function stays text.
    """

    def __init__(self, parser: TransformersParser, function_names: set[str], *, parallel: bool) -> None:
        self.done = False
        self._parser: TransformersParser | None = parser
        """None after the template failed on this answer; the rest is text."""
        self._function_names = function_names
        self._parallel = parallel
        self._call_count = 0
        self._raw = ""  # text that was fed to the parser and is not in any delta yet
        self._text, self._reasoning = _TrimmedText(), _TrimmedText()
        self._deltas: list[ParsedCallDelta] = []

    def feed(self, text: str) -> ParsedDelta:
        for char in text:
            self._feed_char(char)
        return self._take_delta()

    def finish(self) -> ParsedDelta:
        if self._parser:
            try:
                _, events = self._parser.finalize()
                self._handle_events(events)
            except _PARSER_FAILURES:
                self._release_raw()
        return self._take_delta()

    def _feed_char(self, char: str) -> None:
        """One character at a time, so that the parser fails at the exact character."""
        if self.done:
            return
        self._raw += char
        try:
            self._handle_events(self._parser.feed(char) if self._parser else [])
        except _PARSER_FAILURES:
            self._parser = None
        if not self._parser:
            self._release_raw()

    def _handle_events(self, events: list[ParserEvent]) -> None:
        for event in events:
            if event["type"] == "region_chunk":
                self._handle_chunk(event["field"], event["text"])
            elif event["type"] == "region_close":
                self._handle_close(event["field"], event["value"])

    def _handle_chunk(self, field: str, text: str) -> None:
        if field == "tool_calls":
            return
        (self._reasoning if field in _REASONING_FIELDS else self._text).add(text)
        self._raw = self._raw[self._raw.find(text) + len(text) :]

    def _handle_close(self, field: str, value: object) -> None:
        if field != "tool_calls":
            return
        calls = [_parse_call(each) for each in (value if isinstance(value, list) else [value])]
        if not all(call and call[0] in self._function_names for call in calls):
            self._release_raw()
            return
        self._raw = ""
        for name, arguments in filter(None, calls):
            self._deltas += [
                ParsedCallDelta(self._call_count, name=name),
                ParsedCallDelta(self._call_count, arguments=arguments),
            ]
            self._call_count += 1
            self.done = not self._parallel
            if self.done:
                return

    def _release_raw(self) -> None:
        self._text.add(self._raw)
        self._raw = ""

    def _take_delta(self) -> ParsedDelta:
        delta = ParsedDelta(self._text.take(), self._reasoning.take(), tuple(self._deltas))
        self._deltas = []
        return delta


class _TrimmedText:
    """Text without the surrounding space, which belongs to the template."""

    def __init__(self) -> None:
        self._ready = ""
        self._pending_space: str | None = None
        """Space that is released if text follows; None before the first text, whose leading space is dropped."""

    def add(self, text: str) -> None:
        pending = text.lstrip() if self._pending_space is None else self._pending_space + text
        words = pending.rstrip()
        self._ready += words
        if words or self._pending_space is not None:
            self._pending_space = pending[len(words) :]

    def take(self) -> str:
        ready, self._ready = self._ready, ""
        return ready


def _parse_call(value: object) -> tuple[str, str] | None:
    """(name, arguments as JSON) of a parsed region; None when the region is not a call."""
    function = value.get("function") if isinstance(value, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    arguments = function.get("arguments", {}) if isinstance(function, dict) else None
    if not isinstance(name, str) or not isinstance(arguments, dict | str):
        return None
    return name, arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
