"""A completion as a job: its prompts as they were sent, without a template. Knows nothing of how it is told."""

import asyncio

from millm.errors import InvalidRequest
from millm.lifecycle.on_demand import ready_for
from millm.openai.job import Job, choose, plan
from millm.openai.schemas.completions import CompletionRequest, Prompt
from millm.state import LoadedModel, State


async def completion_job(state: State, body: CompletionRequest, header_profile: str | None, *, prefix: str) -> Job:
    """Raises what the steps of it raise."""
    await ready_for(state, body.model)
    selection = choose(state, body, header_profile)
    prompts = await asyncio.to_thread(_ids, selection.model, body.prompt)
    echoes = _echoes(selection.model, body.prompt, prompts) if body.echo else ()
    return plan(
        state,
        selection,
        body,
        prompts,
        prefix=prefix,
        stop=body.stop,
        continues=True,
        echoes=echoes,
        last_words=body.prompt[0] if isinstance(body.prompt[0], str) else "",
    )


def _ids(model: LoadedModel, prompts: list[Prompt]) -> list[list[int]]:
    return [_text(model, prompt) if isinstance(prompt, str) else _known(model, prompt) for prompt in prompts]


def _echoes(model: LoadedModel, prompts: list[Prompt], ids: list[list[int]]) -> list[str]:
    """Each prompt as it was written, or as its tokens are."""
    return [
        prompt if isinstance(prompt, str) else b"".join(model.tokenizer.spelled(prompt_ids)).decode(errors="replace")
        for prompt, prompt_ids in zip(prompts, ids, strict=True)
    ]


def _text(model: LoadedModel, text: str) -> list[int]:
    """Without text, and where no token marks a beginning, the answer begins after the end of another text."""
    model.tokenizer.check_length(text, model.facts.context_length)
    ids = model.tokenizer.encode(text)
    if not ids and model.tokenizer.eos_id is not None:
        return [model.tokenizer.eos_id]
    if not ids:
        raise InvalidRequest("`prompt` is empty; this model needs at least one token.", param="prompt")
    return ids


def _known(model: LoadedModel, ids: list[int]) -> list[int]:
    if max(ids) >= model.facts.vocab_size:
        raise InvalidRequest(f"`prompt` takes token ids from 0 to {model.facts.vocab_size - 1}.", param="prompt")
    return ids
