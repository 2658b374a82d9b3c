"""A response before anything is written: which it is, and what was asked with the defaults that hold."""

from typing import Any

from millm.openai.job import Job
from millm.openai.responses.answer import FunctionTool, Response
from millm.openai.responses.request import ResponsesRequest, TextConfig
from millm.openai.tools import Tooling


def begun(job: Job, body: ResponsesRequest, tooling: Tooling) -> Response:
    return Response(
        id=job.id,
        created_at=job.created,
        model=job.asked_model,
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_logprobs=body.top_logprobs or 0,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        text=_text(body.text),
        tools=_tools(body),
        tool_choice=body.tool_choice,
        parallel_tool_calls=tooling.several if body.parallel_tool_calls is None else body.parallel_tool_calls,
        max_tool_calls=body.max_tool_calls,
        reasoning={"effort": body.reasoning.effort, "summary": None},
        truncation=body.truncation,
        metadata=body.metadata,
        user=body.user,
        safety_identifier=body.safety_identifier,
        prompt_cache_key=body.prompt_cache_key,
    )


def _text(asked: TextConfig) -> dict[str, Any]:
    form = asked.format
    described = {"name": form.name, "description": form.description, "schema": form.schema_, "strict": form.strict}
    details = described if form.type == "json_schema" else {}
    return {"format": {"type": form.type, **details}, "verbosity": asked.verbosity}


def _tools(body: ResponsesRequest) -> tuple[FunctionTool, ...]:
    return tuple(
        FunctionTool(name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict)
        for tool in body.tools
    )
