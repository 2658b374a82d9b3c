"""openai-python: the same calls as coroutines, several at once."""

import asyncio
from typing import Literal

from openai import AsyncOpenAI
from pydantic import BaseModel, Field
from telling import Task, raised_by, tell


class Weather(BaseModel):
    city: Literal["Oslo", "Rome"]
    degrees: int = Field(ge=0, le=40)


def client(task: Task) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=task.base_url, api_key="any", max_retries=0)


async def answer(task: Task, model: str, messages: list[dict[str, object]] | None = None) -> object:
    turns = messages or [{"role": "user", "content": task.question}]
    body = {"model": model, "messages": turns, "temperature": 0, "max_tokens": task.max_tokens}
    return await client(task).chat.completions.create(**body)


def models(task: Task) -> list[str]:
    async def listed() -> list[str]:
        return [model.id async for model in client(task).models.list()]

    return asyncio.run(listed())


def chat(task: Task) -> str | None:
    async def at_once() -> list[str | None]:
        answers = await asyncio.gather(*(answer(task, task.model) for _ in range(3)))
        return [whole.choices[0].message.content for whole in answers]

    first, *others = asyncio.run(at_once())
    assert others == [first, first]
    return first


def streaming(task: Task) -> list[str]:
    async def streamed() -> list[str]:
        stream = await client(task).chat.completions.create(
            model=task.model, messages=[{"role": "user", "content": task.question}], temperature=0,
            max_tokens=task.max_tokens, stream=True,
        )  # fmt: skip
        return [chunk.choices[0].delta.content or "" async for chunk in stream]

    return asyncio.run(streamed())


def profile(task: Task) -> str | None:
    return asyncio.run(answer(task, task.steered)).choices[0].message.content


def usage(task: Task) -> list[int]:
    told = asyncio.run(answer(task, task.model)).usage
    return [told.prompt_tokens, told.completion_tokens, told.total_tokens]


def tools(task: Task) -> dict[str, str]:
    called = asyncio.run(
        client(task).chat.completions.create(
            model=task.model, messages=[{"role": "user", "content": task.question}], tools=[task.tool],
            tool_choice="required", temperature=0, max_tokens=64,
        )
    )  # fmt: skip
    (call,) = called.choices[0].message.tool_calls
    return {"name": call.function.name, "arguments": call.function.arguments}


def streamed_tools(task: Task) -> dict[str, str]:
    async def streamed() -> object:
        asked = client(task).chat.completions.stream(
            model=task.model, messages=[{"role": "user", "content": task.question}], tools=[task.tool],
            tool_choice="required", temperature=0, max_tokens=64,
        )  # fmt: skip
        async with asked as stream:
            return await stream.get_final_completion()

    (call,) = asyncio.run(streamed()).choices[0].message.tool_calls
    return {"name": call.function.name, "arguments": call.function.arguments}


def tool_results(task: Task) -> str | None:
    return asyncio.run(answer(task, task.model, task.after_a_call)).choices[0].message.content


def structured(task: Task) -> dict[str, object]:
    parsed = asyncio.run(
        client(task).chat.completions.parse(
            model=task.model, messages=[{"role": "user", "content": task.question}], response_format=Weather,
            temperature=0, max_tokens=64,
        )
    )  # fmt: skip
    return parsed.choices[0].message.parsed.model_dump()


def embeddings(task: Task) -> list[list[float]]:
    answered = asyncio.run(client(task).embeddings.create(model=task.model, input=task.texts))
    return [entry.embedding for entry in answered.data]


def responses(task: Task) -> str:
    asked = client(task).responses.create(
        model=task.model, input=task.question, temperature=0, max_output_tokens=task.max_tokens
    )  # fmt: skip
    return asyncio.run(asked).output_text


def streamed_responses(task: Task) -> list[str]:
    async def streamed() -> list[str]:
        stream = await client(task).responses.create(
            model=task.model, input=task.question, temperature=0, max_output_tokens=task.max_tokens, stream=True
        )  # fmt: skip
        return [event.delta async for event in stream if event.type == "response.output_text.delta"]

    return asyncio.run(streamed())


def unknown_model(task: Task) -> dict[str, str]:
    return raised_by(lambda: asyncio.run(answer(task, "nobody/nothing")))


def too_long(task: Task) -> dict[str, str]:
    turns = [{"role": "user", "content": task.long_text}]
    return raised_by(lambda: asyncio.run(answer(task, task.model, turns)))


if __name__ == "__main__":
    tell(models, chat, streaming, profile, usage, tools, streamed_tools, tool_results, structured, embeddings,
         responses, streamed_responses, unknown_model, too_long)  # fmt: skip
