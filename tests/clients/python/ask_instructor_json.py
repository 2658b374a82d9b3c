"""instructor by a JSON schema: the answer's form is the response's format."""

from typing import Literal

import instructor
from openai import OpenAI
from pydantic import BaseModel, ConfigDict, Field
from telling import Task, tell


class Weather(BaseModel):
    model_config = ConfigDict(extra="forbid")  # else the schema has room for properties of the model's own

    city: Literal["Oslo", "Rome"]
    degrees: int = Field(ge=0, le=40)


def structured(task: Task) -> dict[str, object]:
    openai = OpenAI(base_url=task.base_url, api_key="any")
    client = instructor.from_openai(openai, mode=instructor.Mode.JSON_SCHEMA)
    question = [{"role": "user", "content": task.question}]
    return client.create(
        model=task.model, messages=question, response_model=Weather, temperature=0, max_tokens=64, max_retries=0
    ).model_dump()  # fmt: skip


if __name__ == "__main__":
    tell(structured)
