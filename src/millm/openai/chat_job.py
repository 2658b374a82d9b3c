"""A chat as a job: its prompt, what its answer is held to and how it is read. Knows nothing of how it is told."""

import asyncio

from millm.lifecycle.on_demand import ready_for
from millm.openai.constraint import grammar_of
from millm.openai.history import turns
from millm.openai.job import Job, choose, plan
from millm.openai.prompting import write_down
from millm.openai.reading import reading_of
from millm.openai.schemas.chat import ChatRequest
from millm.openai.tools import Tooling
from millm.state import State
from millm.text.content import text_of


async def chat_job(
    state: State,
    body: ChatRequest,
    tooling: Tooling,
    header_profile: str | None,
    *,
    prefix: str,
    format_name: str = "response_format",
) -> Job:
    """`format_name`: what `response_format` is called where it was asked for. Raises what the steps of it raise."""
    turns(body.messages, native=False)  # refuses what is no text before anything is decided
    grammar = await asyncio.to_thread(grammar_of, body.response_format, tooling, format_name)
    await ready_for(state, body.model)
    selection = choose(state, body, header_profile)
    model = selection.model
    written = await asyncio.to_thread(write_down, model, body, tooling)
    return plan(
        state,
        selection,
        body,
        [written.prompt.ids],
        prefix=prefix,
        stop=(*body.stop, *model.template.stop_strings),
        continues=body.continue_final_message,
        grammar=grammar,
        reading=reading_of(model, tooling, written.prompt.text, is_constrained=grammar is not None),
        tools_omitted=not written.tells_tools,
        last_words=text_of(body.messages[-1].content),
    )
