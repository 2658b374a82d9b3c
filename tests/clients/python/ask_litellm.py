"""LiteLLM: the provider `openai/` with an `api_base`."""

import json

import litellm
from telling import Task, raised_by, tell


def answer(task: Task, model: str | None = None, **changes: object) -> litellm.ModelResponse:
    body = {
        "messages": [{"role": "user", "content": task.question}], "temperature": 0, "max_tokens": task.max_tokens,
        "num_retries": 0, **changes,
    }  # fmt: skip
    return litellm.completion(f"openai/{model or task.model}", api_base=task.base_url, api_key="any", **body)


def forced(task: Task) -> dict[str, object]:
    name = task.tool["function"]["name"]
    return {"tools": [task.tool], "tool_choice": {"type": "function", "function": {"name": name}}, "max_tokens": 64}


def chat(task: Task) -> str:
    return answer(task).choices[0].message.content


def streaming(task: Task) -> list[str]:
    return [piece.choices[0].delta.content or "" for piece in answer(task, stream=True)]


def profile(task: Task) -> str:
    return answer(task, task.steered).choices[0].message.content


def usage(task: Task) -> list[int]:
    told = answer(task).usage
    return [told.prompt_tokens, told.completion_tokens, told.total_tokens]


def completions(task: Task) -> dict[str, str]:
    continued = litellm.text_completion(
        model=f"text-completion-openai/{task.model}", prompt=task.question, api_base=task.base_url, api_key="any",
        temperature=0, max_tokens=task.max_tokens,
    )  # fmt: skip
    return {"prompt": task.question, "text": continued.choices[0].text}


def tools(task: Task) -> dict[str, str]:
    (call,) = answer(task, **forced(task)).choices[0].message.tool_calls
    return {"name": call.function.name, "arguments": call.function.arguments}


def streamed_tools(task: Task) -> dict[str, str]:
    whole = litellm.stream_chunk_builder(list(answer(task, stream=True, **forced(task))))
    (call,) = whole.choices[0].message.tool_calls
    return {"name": call.function.name, "arguments": call.function.arguments}


def tool_results(task: Task) -> str:
    return answer(task, messages=task.after_a_call).choices[0].message.content


def structured(task: Task) -> dict[str, object]:
    body = {"type": "json_schema", "json_schema": {"name": "weather", "schema": task.schema, "strict": True}}
    text = answer(task, response_format=body, max_tokens=64).choices[0].message.content
    return json.loads(text)


def embeddings(task: Task) -> list[list[float]]:
    answered = litellm.embedding(f"openai/{task.model}", input=task.texts, api_base=task.base_url, api_key="any")
    return [entry["embedding"] for entry in answered.data]


def responses(task: Task) -> str:
    answered = litellm.responses(
        model=f"openai/{task.model}", input=task.question, api_base=task.base_url, api_key="any", temperature=0,
        max_output_tokens=task.max_tokens,
    )  # fmt: skip
    return answered.output_text


def unknown_model(task: Task) -> dict[str, str]:
    return raised_by(lambda: answer(task, "nobody/nothing"))


def too_long(task: Task) -> dict[str, str]:
    return raised_by(lambda: answer(task, messages=[{"role": "user", "content": task.long_text}]))


if __name__ == "__main__":
    tell(chat, streaming, profile, usage, completions, tools, streamed_tools, tool_results, structured, embeddings,
         responses, unknown_model, too_long)  # fmt: skip
