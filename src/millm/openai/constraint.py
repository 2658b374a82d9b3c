"""The grammar that a chat's answer is held to, if any: a forced call's, or that of `response_format`."""

from millm.openai.tools import ToolConfig
from millm.protocol.request import ResponseFormat
from millm.text.json_schema import arguments_grammar, call_grammar, object_grammar, schema_grammar


def answer_grammar(format: ResponseFormat, tooling: ToolConfig, name: str = "response_format") -> str | None:
    """A forced call goes before the format, which is for answers in words. `strict` makes no difference: what is
    asked is held to. Raises InvalidRequest for a schema that cannot be, under the `name` that the format has in the
    request. Takes milliseconds, up to a tenth of a second.
    """
    if tooling.choice == "named":
        return arguments_grammar(tooling.functions[0])
    if tooling.choice == "required":
        return call_grammar(tooling.functions, parallel=tooling.parallel_calls)
    if format.json_schema:
        return schema_grammar(format.json_schema.schema_, name)
    return object_grammar() if format.type == "json_object" else None
