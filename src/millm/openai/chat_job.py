"""A chat as a job: its prompt, what its answer is held to and how it is read. Knows nothing of how it is told."""

import asyncio

from millm.lifecycle.restore import ensure_loaded
from millm.openai.constraint import answer_grammar
from millm.openai.history import template_messages
from millm.openai.job import GenerationRequest, build_request, resolve_selection
from millm.openai.prompting import render_prompt
from millm.openai.reading import parser_config_of
from millm.openai.tools import ToolConfig
from millm.protocol.request import ChatRequest
from millm.state import State
from millm.text.chat_template import content_text


async def prepare_chat(
    state: State,
    body: ChatRequest,
    tooling: ToolConfig,
    header_profile: str | None,
    *,
    prefix: str,
    format_name: str = "response_format",
) -> GenerationRequest:
    """`format_name`: what `response_format` is called where it was asked for. Raises what the steps of it raise."""
    template_messages(body.messages, native=False)  # refuses what is no text before anything is decided
    grammar = await asyncio.to_thread(answer_grammar, body.response_format, tooling, format_name)
    await ensure_loaded(state, body.model)
    selection = resolve_selection(state, body, header_profile)
    model = selection.model
    written = await asyncio.to_thread(render_prompt, model, body, tooling)
    return build_request(
        state,
        selection,
        body,
        [written.prompt.ids],
        prefix=prefix,
        stop=(*body.stop, *model.chat_template.stop_strings),
        continues_prompt=body.continue_final_message,
        grammar=grammar,
        parser_config=parser_config_of(model, tooling, written.prompt.text, is_constrained=grammar is not None),
        tools_omitted=not written.includes_tools,
        last_prompt_text=content_text(body.messages[-1].content),
    )
