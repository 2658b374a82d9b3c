"""LlamaIndex: OpenAILike for chats and prompts, OpenAILikeEmbedding."""

import json
from typing import Literal

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field
from telling import Task, raised_by, tell


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Oslo", "Rome"]
    degrees: int = Field(ge=0, le=40)


def model(task: Task, name: str | None = None, **changes: object) -> OpenAILike:
    settings = {
        "temperature": 0, "max_tokens": task.max_tokens, "max_retries": 0, "context_window": 8192,
        "is_chat_model": True, "is_function_calling_model": True, **changes,
    }  # fmt: skip
    return OpenAILike(model=name or task.model, api_base=task.base_url, api_key="any", **settings)


def asked(task: Task) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=task.question)]


def chat(task: Task) -> str | None:
    return model(task).chat(asked(task)).message.content


def streaming(task: Task) -> list[str]:
    return [piece.delta or "" for piece in model(task).stream_chat(asked(task))]


def profile(task: Task) -> str | None:
    return model(task, task.steered).chat(asked(task)).message.content


def usage(task: Task) -> list[int]:
    told = model(task).chat(asked(task)).raw.usage
    return [told.prompt_tokens, told.completion_tokens, told.total_tokens]


def completions(task: Task) -> dict[str, str]:
    return {"prompt": task.question, "text": model(task, is_chat_model=False).complete(task.question).text}


def look_up_weather(city: Literal["Oslo", "Rome"], days: int) -> str:
    """Tell the weather of a city."""
    return f"{city}: {days} days of rain"


def tools(task: Task) -> dict[str, str]:
    llm = model(task, max_tokens=64)
    tool = FunctionTool.from_defaults(look_up_weather)
    return called(llm, llm.chat_with_tools([tool], user_msg=task.question, tool_required=True))


def streamed_tools(task: Task) -> dict[str, str]:
    llm = model(task, max_tokens=64)
    tool = FunctionTool.from_defaults(look_up_weather)
    *_, last = llm.stream_chat_with_tools([tool], user_msg=task.question, tool_required=True)
    return called(llm, last)


def called(llm: OpenAILike, answered: ChatResponse) -> dict[str, str]:
    (call,) = llm.get_tool_calls_from_response(answered)
    return {"name": call.tool_name, "arguments": json.dumps(call.tool_kwargs)}


def tool_results(task: Task) -> str | None:
    question, call, result = task.after_a_call
    turns = [
        ChatMessage(role="user", content=question["content"]),
        ChatMessage(role="assistant", content=None, additional_kwargs={"tool_calls": call["tool_calls"]}),
        ChatMessage(
            role="tool", content=result["content"], additional_kwargs={"tool_call_id": result["tool_call_id"]}
        ),
    ]  # fmt: skip
    return model(task).chat(turns).message.content


def structured(task: Task) -> dict[str, object]:
    llm = model(task, max_tokens=64)
    by_tool = llm.structured_predict(Weather, PromptTemplate(task.question))
    assert isinstance(by_tool, Weather)
    by_schema = model(task, max_tokens=64, should_use_structured_outputs=True)
    return by_schema.structured_predict(Weather, PromptTemplate(task.question)).model_dump()


def embeddings(task: Task) -> list[list[float]]:
    embedder = OpenAILikeEmbedding(model_name=task.model, api_base=task.base_url, api_key="any")
    return embedder.get_text_embedding_batch(task.texts)


def unknown_model(task: Task) -> dict[str, str]:
    return raised_by(lambda: model(task, "nobody/nothing").chat(asked(task)))


def too_long(task: Task) -> dict[str, str]:
    return raised_by(lambda: model(task).chat([ChatMessage(role="user", content=task.long_text)]))


if __name__ == "__main__":
    tell(chat, streaming, profile, usage, completions, tools, streamed_tools, tool_results, structured, embeddings,
         unknown_model, too_long)  # fmt: skip
