"""A response before anything is written: which it is, and what was asked with the defaults that hold."""

from typing import Any

from millm.generation.request import GenerationRequest
from millm.generation.tools import ToolConfig
from millm.openai.responses.answer import ResponseFunctionTool, ResponseObject
from millm.openai.responses.request import ResponsesRequest, TextConfig


def initial_response(generation: GenerationRequest, body: ResponsesRequest, tooling: ToolConfig) -> ResponseObject:
    return ResponseObject(
        id=generation.id,
        created_at=generation.created,
        model=generation.requested_model,
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_logprobs=body.top_logprobs or 0,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        text=_text_config(body.text),
        tools=_tools(body),
        tool_choice=body.tool_choice,
        parallel_tool_calls=tooling.parallel_calls if body.parallel_tool_calls is None else body.parallel_tool_calls,
        max_tool_calls=body.max_tool_calls,
        reasoning={"effort": body.reasoning.effort, "summary": None},
        truncation=body.truncation,
        metadata=body.metadata,
        user=body.user,
        safety_identifier=body.safety_identifier,
        prompt_cache_key=body.prompt_cache_key,
    )


def _text_config(config: TextConfig) -> dict[str, Any]:
    form = config.format
    described = {"name": form.name, "description": form.description, "schema": form.schema_, "strict": form.strict}
    details = described if form.type == "json_schema" else {}
    return {"format": {"type": form.type, **details}, "verbosity": config.verbosity}


def _tools(body: ResponsesRequest) -> tuple[ResponseFunctionTool, ...]:
    return tuple(
        ResponseFunctionTool(
            name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict
        )
        for tool in body.tools
    )
