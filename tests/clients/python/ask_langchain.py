"""LangChain: ChatOpenAI, bound tools, structured output, OpenAIEmbeddings."""

import json
from typing import Literal

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field
from telling import Task, raised_by, tell


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Oslo", "Rome"]
    degrees: int = Field(ge=0, le=40)


def chat_model(task: Task, model: str | None = None, **changes: object) -> ChatOpenAI:
    settings = {"temperature": 0, "max_tokens": task.max_tokens, "max_retries": 0, **changes}
    return ChatOpenAI(base_url=task.base_url, api_key="any", model=model or task.model, **settings)


def chat(task: Task) -> str:
    return chat_model(task).invoke(task.question).content


def streaming(task: Task) -> list[str]:
    return [piece.content for piece in chat_model(task).stream(task.question)]


def profile(task: Task) -> str:
    return chat_model(task, task.steered).invoke(task.question).content


def usage(task: Task) -> list[int]:
    whole = chat_model(task).invoke(task.question).usage_metadata
    pieces = list(chat_model(task, stream_usage=True).stream(task.question))
    streamed = next(piece.usage_metadata for piece in pieces if piece.usage_metadata)
    assert streamed["total_tokens"] == whole["total_tokens"]
    return [whole["input_tokens"], whole["output_tokens"], whole["total_tokens"]]


def tools(task: Task) -> dict[str, str]:
    bound = chat_model(task, max_tokens=64).bind_tools([task.tool], tool_choice=task.tool["function"]["name"])
    (call,) = bound.invoke(task.question).tool_calls
    return {"name": call["name"], "arguments": json.dumps(call["args"])}


def streamed_tools(task: Task) -> dict[str, str]:
    bound = chat_model(task, max_tokens=64).bind_tools([task.tool], tool_choice="any")
    first, *others = bound.stream(task.question)
    for piece in others:
        first += piece
    (call,) = first.tool_calls
    return {"name": call["name"], "arguments": json.dumps(call["args"])}


def tool_results(task: Task) -> str:
    question, call, result = task.after_a_call
    asked = call["tool_calls"][0]
    arguments = json.loads(asked["function"]["arguments"])
    turns = [
        HumanMessage(question["content"]),
        AIMessage("", tool_calls=[{"name": asked["function"]["name"], "args": arguments, "id": asked["id"]}]),
        ToolMessage(result["content"], tool_call_id=asked["id"]),
    ]
    return chat_model(task).invoke(turns).content


def structured(task: Task) -> dict[str, object]:
    """By a tool it wants `strict=True`: else the schema that it sends has room for properties of the model's own."""
    by_tool = chat_model(task, max_tokens=64).with_structured_output(Weather, method="function_calling", strict=True)
    assert isinstance(by_tool.invoke(task.question), Weather)
    return chat_model(task, max_tokens=64).with_structured_output(Weather).invoke(task.question).model_dump()


def embeddings(task: Task) -> list[list[float]]:
    """Without `check_embedding_ctx_length=False` it would fetch a tokenizer that is not this model's."""
    embedder = OpenAIEmbeddings(
        base_url=task.base_url, api_key="any", model=task.model, check_embedding_ctx_length=False
    )  # fmt: skip
    return embedder.embed_documents(task.texts)


def responses(task: Task) -> str:
    return chat_model(task, use_responses_api=True).invoke(task.question).text


def streamed_responses(task: Task) -> list[str]:
    return [piece.text for piece in chat_model(task, use_responses_api=True).stream(task.question)]


def structured_responses(task: Task) -> dict[str, object]:
    model = chat_model(task, use_responses_api=True, max_tokens=64)
    return model.with_structured_output(Weather).invoke(task.question).model_dump()


def unknown_model(task: Task) -> dict[str, str]:
    return raised_by(lambda: chat_model(task, "nobody/nothing").invoke(task.question))


def too_long(task: Task) -> dict[str, str]:
    return raised_by(lambda: chat_model(task).invoke(task.long_text))


if __name__ == "__main__":
    tell(chat, streaming, profile, usage, tools, streamed_tools, tool_results, structured, embeddings,
         responses, streamed_responses, structured_responses, unknown_model, too_long)  # fmt: skip
