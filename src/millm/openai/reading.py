"""How an answer's text is to be read: as it is, as a forced call, or by what the model writes around its calls."""

from collections.abc import Callable, Container
from dataclasses import dataclass

from millm.openai.schemas.answers import FinishReason
from millm.openai.tools import Tooling
from millm.state import LoadedModel
from millm.text.call_markers import CLOSE, OPEN, MarkedCalls
from millm.text.forced_calls import ForcedArguments, ForcedCalls
from millm.text.told import Reader, Verbatim


@dataclass(frozen=True)
class AnswerReading:
    """For all choices of a request; each gets a reader of its own."""

    reader: Callable[[], Reader] = Verbatim
    shown: Container[int] = ()
    """Special tokens that the reader has to see."""
    after_calls: FinishReason = "tool_calls"
    """Why an answer ends that has made its calls."""


VERBATIM = AnswerReading()


def reading_of(model: LoadedModel, tooling: Tooling, prompt: str, *, is_constrained: bool) -> AnswerReading:
    """OpenAI ends a call of a named function with "stop", every other with "tool_calls"."""
    functions, several = tooling.functions, tooling.several
    names = frozenset(function.name for function in functions)
    if tooling.choice == "named":
        return AnswerReading(lambda: ForcedArguments(functions[0].name), after_calls="stop")
    if tooling.choice == "required":
        return AnswerReading(lambda: ForcedCalls(names))
    if is_constrained:
        return VERBATIM
    if model.responses:
        responses = model.responses
        shown = model.tokenizer.special_in(responses.mentions)
        return AnswerReading(lambda: responses.reader(prompt, functions, several=several), shown)
    if functions:
        return AnswerReading(lambda: MarkedCalls(names, several=several), model.tokenizer.special_in(OPEN + CLOSE))
    return VERBATIM
