"""The command `llm`, told of the server in its `extra-openai-models.yaml`."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from telling import Task, tell


@contextmanager
def configured(task: Task) -> Iterator[dict[str, str]]:
    """The environment of a user who has written down three models: ours, steered, and one that is not there."""
    names = {"ours": task.model, "steered": task.steered, "nobody": "nobody/nothing"}
    entries = [
        {"model_id": alias, "model_name": name, "api_base": task.base_url, "supports_schema": True}
        for alias, name in names.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "extra-openai-models.yaml").write_text(json.dumps(entries))  # JSON is YAML
        yield {**os.environ, "LLM_USER_PATH": folder, "OPENAI_API_KEY": "any"}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llm", *arguments]
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def prompt(task: Task, *more: str, model: str = "ours", limit: int | None = None) -> str:
    options = ("-m", model, "-o", "temperature", "0", "-o", "max_tokens", str(limit or task.max_tokens))
    with configured(task) as environment:
        done = run(environment, "prompt", task.question, *options, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n")


def chat(task: Task) -> str:
    return prompt(task, "--no-stream")


def streaming(task: Task) -> list[str]:
    with configured(task) as environment:
        command = [sys.executable, "-m", "llm", "prompt", task.question, "-m", "ours", "-o", "temperature", "0",
                   "-o", "max_tokens", str(task.max_tokens)]  # fmt: skip
        shown = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        pieces = []
        while piece := os.read(shown.stdout.fileno(), 4096):
            pieces.append(piece)
        assert shown.wait() == 0
    return [piece.decode() for piece in pieces]


def profile(task: Task) -> str:
    return prompt(task, "--no-stream", model="steered")


def usage(task: Task) -> list[int]:
    with configured(task) as environment:
        run(environment, "prompt", task.question, "-m", "ours", "-o", "temperature", "0",
            "-o", "max_tokens", str(task.max_tokens))  # fmt: skip
        (logged,) = json.loads(run(environment, "logs", "--json").stdout)
    used = (logged["input_tokens"], logged["output_tokens"])
    return [*used, sum(used)]


def structured(task: Task) -> dict[str, object]:
    return json.loads(prompt(task, "--no-stream", "--schema", json.dumps(task.schema), limit=64))


def unknown_model(task: Task) -> dict[str, str]:
    return refused(task, task.question, "nobody")


def too_long(task: Task) -> dict[str, str]:
    return refused(task, task.long_text, "ours")


def refused(task: Task, question: str, model: str) -> dict[str, str]:
    """It says on one line what the server said, with the status before it."""
    with configured(task) as environment:
        told = run(environment, "prompt", question, "-m", model)
    assert told.returncode == 1
    return {"class": told.stderr.partition(" - ")[0], "message": told.stderr}


if __name__ == "__main__":
    tell(chat, streaming, profile, usage, structured, unknown_model, too_long)
