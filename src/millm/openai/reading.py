"""How an answer's text is to be read: as it is, as a forced call, or by what the model writes around its calls."""

from collections.abc import Callable, Container
from dataclasses import dataclass

from millm.loaded import LoadedModel
from millm.openai.tools import ToolConfig
from millm.protocol.response import FinishReason
from millm.text.tool_calls import (
    CLOSE_TAG,
    OPEN_TAG,
    DeltaParser,
    ForcedArgumentsParser,
    ForcedCallsParser,
    PlainTextParser,
    TaggedCallsParser,
)


@dataclass(frozen=True)
class OutputParserConfig:
    """For all choices of a request; each gets a reader of its own."""

    make_parser: Callable[[], DeltaParser] = PlainTextParser
    visible_tokens: Container[int] = ()
    """Special tokens that the reader has to see."""
    finish_after_calls: FinishReason = "tool_calls"
    """Why an answer ends that has made its calls."""


PLAIN_TEXT = OutputParserConfig()


def parser_config_of(
    model: LoadedModel, tooling: ToolConfig, prompt: str, *, is_constrained: bool
) -> OutputParserConfig:
    """OpenAI ends a call of a named function with "stop", every other with "tool_calls"."""
    functions, several = tooling.functions, tooling.parallel_calls
    names = frozenset(function.name for function in functions)
    if tooling.choice == "named":
        return OutputParserConfig(lambda: ForcedArgumentsParser(functions[0].name), finish_after_calls="stop")
    if tooling.choice == "required":
        return OutputParserConfig(lambda: ForcedCallsParser(names))
    if is_constrained:
        return PLAIN_TEXT
    if model.response_template:
        responses = model.response_template
        shown = model.tokenizer.special_ids_in(responses.source_text)
        return OutputParserConfig(lambda: responses.create_parser(prompt, functions, parallel=several), shown)
    if functions:
        return OutputParserConfig(
            lambda: TaggedCallsParser(names, parallel=several), model.tokenizer.special_ids_in(OPEN_TAG + CLOSE_TAG)
        )
    return PLAIN_TEXT
