"""Prepares a completion: prompts are used as sent, without a chat template."""

import asyncio

from millm.errors import InvalidRequest
from millm.generation.request import GenerationRequest, build_request, resolve_selection
from millm.lifecycle.restore import ensure_loaded
from millm.loaded import LoadedModel
from millm.protocol.request import CompletionRequest, Prompt
from millm.state import State


async def prepare_completion(
    state: State, body: CompletionRequest, header_profile: str | None, *, prefix: str
) -> GenerationRequest:
    await ensure_loaded(state, body.model)
    selection = resolve_selection(state, body, header_profile)
    prompts = await asyncio.to_thread(_prompt_ids, selection.model, body.prompt)
    echoes = _echoes(selection.model, body.prompt, prompts) if body.echo else ()
    return build_request(
        state,
        selection,
        body,
        prompts,
        prefix=prefix,
        stop=body.stop,
        continues_prompt=True,
        echoes=echoes,
        last_prompt_text=body.prompt[0] if isinstance(body.prompt[0], str) else "",
    )


def _prompt_ids(model: LoadedModel, prompts: list[Prompt]) -> list[list[int]]:
    return [
        _encode_text(model, prompt) if isinstance(prompt, str) else _validated_ids(model, prompt) for prompt in prompts
    ]


def _echoes(model: LoadedModel, prompts: list[Prompt], ids: list[list[int]]) -> list[str]:
    """Text of each prompt, decoded where the client sent token ids."""
    return [
        prompt
        if isinstance(prompt, str)
        else b"".join(model.tokenizer.prompt_token_bytes(prompt_ids)).decode(errors="replace")
        for prompt, prompt_ids in zip(prompts, ids, strict=True)
    ]


def _encode_text(model: LoadedModel, text: str) -> list[int]:
    """An empty prompt becomes the end-of-text token, for models without a start token."""
    model.tokenizer.check_length(text, model.facts.context_length)
    ids = model.tokenizer.encode(text)
    if not ids and model.tokenizer.eos_id is not None:
        return [model.tokenizer.eos_id]
    if not ids:
        raise InvalidRequest("`prompt` is empty; this model needs at least one token.", param="prompt")
    return ids


def _validated_ids(model: LoadedModel, ids: list[int]) -> list[int]:
    if max(ids) >= model.facts.vocab_size:
        raise InvalidRequest(f"`prompt` accepts token ids from 0 to {model.facts.vocab_size - 1}.", param="prompt")
    return ids
