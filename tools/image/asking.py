"""The checks of a running container: its user, its page, its access rules, and a steered answer with its receipt."""

import subprocess
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]

from tools.image.record import Record

MODEL = "smollm2-135m-instruct"
NO_CAPABILITIES = "0000000000000000"
"""No capability."""


def check_the_process(process: "subprocess.Popen[bytes]", record: Record) -> None:
    """The server's, and the engine's, which is its child."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    record.check("it and its engine run as", {one.uids().real for one in family}, {10001})
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text("utf-8").splitlines())
    record.check("capabilities", {status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd")}, {NO_CAPABILITIES})
    record.check("no new privileges", status["NoNewPrivs"].strip(), "1")


def ask_the_door(url: str, record: Record) -> None:
    listed = httpx.get(f"{url}/v1/models", headers={"Host": "millm:8000"}).raise_for_status().json()["data"]
    record.check("as `millm` it lists the profile", f"{MODEL}:yelling" in {entry["id"] for entry in listed}, True)
    record.check("as another name", httpx.get(url, headers={"Host": "example.org"}).status_code, 421)
    page = httpx.get(f"{url}/ui/")
    record.check("its page", (page.status_code, "<script" in page.text), (200, True))


def ask_for_steering(url: str, record: Record) -> None:
    """The same question twice, without chance: as the model answers, and with a profile."""
    plain, yelling = (_answer(url, model) for model in (MODEL, f"{MODEL}:yelling"))
    record.check("the profile on the receipt", yelling["millm"]["profile"], "yelling")
    text = yelling["choices"][0]["message"]["content"]
    record.check("steering changed the text", text != plain["choices"][0]["message"]["content"], True)
    record.add(f"      plain:   {plain['choices'][0]['message']['content']!r}")
    record.add(f"      yelling: {text!r}")
    capitals, letters = sum(map(str.isupper, text)), sum(map(str.isalpha, text))
    record.check("most of its letters are capitals", capitals > 0.6 * letters, True)


def _answer(url: str, model: str) -> dict[str, Any]:
    question = {"model": model, "messages": [{"role": "user", "content": "Tell me about the sea."}]}
    answer = httpx.post(
        f"{url}/v1/chat/completions", json={**question, "temperature": 0, "max_tokens": 24}, timeout=600
    )
    content: dict[str, Any] = answer.raise_for_status().json()
    return content
