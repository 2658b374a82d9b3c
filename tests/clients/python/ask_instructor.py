"""instructor in its usual way: the answer's form is a tool that has to be called."""

from typing import Literal

import instructor
from openai import OpenAI
from pydantic import BaseModel, ConfigDict, Field
from telling import Task, tell


class Weather(BaseModel):
    model_config = ConfigDict(extra="forbid")  # else the schema has room for properties of the model's own

    city: Literal["Oslo", "Rome"]
    degrees: int = Field(ge=0, le=40)


def body(task: Task) -> dict[str, object]:
    question = [{"role": "user", "content": task.question}]
    return {
        "model": task.model, "messages": question, "response_model": Weather, "temperature": 0, "max_tokens": 64,
        "max_retries": 0,
    }  # fmt: skip


def client(task: Task) -> instructor.Instructor:
    return instructor.from_openai(OpenAI(base_url=task.base_url, api_key="any"), mode=instructor.Mode.TOOLS)


def structured(task: Task) -> dict[str, object]:
    *_, last = client(task).create_partial(**body(task))
    assert last.degrees in range(41)
    return client(task).create(**body(task)).model_dump()


if __name__ == "__main__":
    tell(structured)
