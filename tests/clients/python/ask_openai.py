"""openai-python: what its users call, synchronously."""

from typing import Literal

from openai import OpenAI
from pydantic import BaseModel, Field
from telling import Task, raised_by, tell


class Weather(BaseModel):
    city: Literal["Oslo", "Rome"]
    degrees: int = Field(ge=0, le=40)


def client(task: Task) -> OpenAI:
    return OpenAI(base_url=task.base_url, api_key="any", max_retries=0)


def asked(task: Task, **changes: object) -> dict[str, object]:
    question = [{"role": "user", "content": task.question}]
    return {"model": task.model, "messages": question, "temperature": 0, "max_tokens": task.max_tokens, **changes}


def forced(task: Task) -> dict[str, object]:
    name = task.tool["function"]["name"]
    return asked(task, tools=[task.tool], tool_choice={"type": "function", "function": {"name": name}}, max_tokens=64)


def responded(task: Task, **changes: object) -> dict[str, object]:
    return {
        "model": task.model, "input": task.question, "temperature": 0, "max_output_tokens": task.max_tokens, **changes,
    }  # fmt: skip


def models(task: Task) -> list[str]:
    assert client(task).models.retrieve(task.steered).id == task.steered
    return [model.id for model in client(task).models.list()]


def chat(task: Task) -> str | None:
    return client(task).chat.completions.create(**asked(task)).choices[0].message.content


def streaming(task: Task) -> list[str]:
    with client(task).chat.completions.stream(**asked(task)) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        assert stream.current_completion_snapshot.choices[0].message.content == "".join(pieces)
    return pieces


def profile(task: Task) -> str | None:
    return client(task).chat.completions.create(**asked(task, model=task.steered)).choices[0].message.content


def usage(task: Task) -> list[int]:
    whole = client(task).chat.completions.create(**asked(task)).usage
    stream = client(task).chat.completions.create(**asked(task, stream=True, stream_options={"include_usage": True}))
    *_, last = stream
    assert last.usage == whole
    return [whole.prompt_tokens, whole.completion_tokens, whole.total_tokens]


def completions(task: Task) -> dict[str, str]:
    body = {"model": task.model, "prompt": task.question, "temperature": 0, "max_tokens": task.max_tokens}
    return {"prompt": task.question, "text": client(task).completions.create(**body).choices[0].text}


def tools(task: Task) -> dict[str, str]:
    answer = client(task).chat.completions.create(**forced(task)).choices[0]
    (call,) = answer.message.tool_calls
    assert answer.message.content is None
    return {"name": call.function.name, "arguments": call.function.arguments}


def streamed_tools(task: Task) -> dict[str, str]:
    with client(task).chat.completions.stream(**forced(task)) as stream:
        (call,) = stream.get_final_completion().choices[0].message.tool_calls
    return {"name": call.function.name, "arguments": call.function.arguments}


def tool_results(task: Task) -> str | None:
    return client(task).chat.completions.create(**asked(task, messages=task.after_a_call)).choices[0].message.content


def structured(task: Task) -> dict[str, object]:
    answer = client(task).chat.completions.parse(**asked(task, response_format=Weather, max_tokens=64))
    return answer.choices[0].message.parsed.model_dump()


def embeddings(task: Task) -> list[list[float]]:
    return [entry.embedding for entry in client(task).embeddings.create(model=task.model, input=task.texts).data]


def responses(task: Task) -> str:
    return client(task).responses.create(**responded(task)).output_text


def streamed_responses(task: Task) -> list[str]:
    """`get_final_response` knows no answer that its limit has cut short; the last event has it."""
    with client(task).responses.stream(**responded(task)) as stream:
        *events, last = stream
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert last.type == "response.incomplete"
    assert last.response.output_text == "".join(pieces)
    return pieces


def structured_responses(task: Task) -> dict[str, object]:
    answer = client(task).responses.parse(**responded(task, max_output_tokens=64), text_format=Weather)
    return answer.output_parsed.model_dump()


def unknown_model(task: Task) -> dict[str, str]:
    return raised_by(lambda: client(task).chat.completions.create(**asked(task, model="nobody/nothing")))


def too_long(task: Task) -> dict[str, str]:
    question = [{"role": "user", "content": task.long_text}]
    return raised_by(lambda: client(task).chat.completions.create(**asked(task, messages=question)))


if __name__ == "__main__":
    tell(models, chat, streaming, profile, usage, completions, tools, streamed_tools, tool_results, structured,
         embeddings, responses, streamed_responses, structured_responses, unknown_model, too_long)  # fmt: skip
