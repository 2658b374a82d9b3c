"""The main story: from the hub to a steered chat, off and on, another model, and a restart.

Real processes: a hub, `millm serve` without arguments, the openai client. Answers equal plain transformers with the
feature's direction added at the hook.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from openai import OpenAI

from tests.api.admin.library import LibraryClient, events_until
from tests.e2e.plain import Plain
from tests.fixtures.fakehub import FakeHub, serving
from tests.fixtures.process import Server, running
from tests.fixtures.repos import GEMMA, GPT2, SCOPE_PATH, SCOPE_SAE

CHAT = [{"role": "user", "content": "One two three"}]
TOKENS = 24
LAYER, FEATURE, STRENGTH = 12, 1234, 12.0
KNOB = {"features": [{"index": FEATURE, "strength": STRENGTH}]}
UNSTEERED = 2
"""Tokens: the first, which is skipped, and the last, which is written and not read."""
SLOW = 100_000
"""Bytes a second of each file: two seconds for Gemma's three parts."""


@dataclass(frozen=True)
class Said:
    text: str
    receipt: dict[str, Any]
    tokens: int
    """Of the prompt and the answer."""


@dataclass(frozen=True)
class Visitor:
    """A user of a running server."""

    server: Server
    api: LibraryClient

    def says(self, model: str = GEMMA) -> Said:
        """The answer to `CHAT`."""
        with OpenAI(base_url=self.server.base_url, api_key="none", max_retries=0) as client:
            answer = client.chat.completions.create(model=model, messages=CHAT, temperature=0, max_tokens=TOKENS)  # type: ignore[arg-type]
        assert answer.usage
        assert answer.model_extra
        return Said(answer.choices[0].message.content or "", answer.model_extra["millm"], answer.usage.total_tokens)

    def loads(self, model: str) -> Any:
        return self.api.post("/api/models/load", {"id": model})

    def attaches(self) -> Any:
        return self.api.post("/api/attachments", {"id": SCOPE_SAE})

    def steers(self) -> None:
        assert self.api.ask("PUT", "/api/steering", KNOB).status_code == 200

    @property
    def is_loaded_and_attached(self) -> tuple[str | None, list[str]]:
        status = self.api.get("/api/status")
        return status["model"] and status["model"]["name"], [sae["sae"] for sae in status["saes"]]


@contextmanager
def visited(folder: Path, variables: Mapping[str, str], *arguments: str) -> Iterator[Visitor]:
    """`cpu_int8=off`: plain transformers computes in float32."""
    started = running(
        "serve", *arguments, model=GEMMA, home=folder / "home", variables=variables, device="cpu", cpu_int8="off"
    )
    with started as server:
        api = LibraryClient(server.url, (folder,))
        with closing(api.http):
            yield Visitor(server, api)


@pytest.mark.timeout(240)
def test_from_the_hub_to_a_steered_chat_and_back_after_a_crash(repositories: Path, tmp_path: Path) -> None:
    plain = Plain(repositories / GEMMA, TOKENS)
    base, steered = plain.generated(CHAT), plain.steered(CHAT, LAYER, STRENGTH * direction(repositories))
    assert base != steered
    with serving(repositories) as hub:
        variables = hub.environment(tmp_path / "cache")
        with visited(tmp_path, variables) as visitor:
            assert visitor.is_loaded_and_attached == (None, [])
            a_model_is_downloaded(visitor, hub)
            visitor.api.downloaded("saes", SCOPE_SAE)
            visitor.api.downloaded("models", GPT2)
            hub.forget()
            it_is_loaded_as_estimated(visitor)
            assert visitor.says().text == base
            it_is_steered(visitor, steered)
            it_is_detached(visitor, base)
            it_is_steered(visitor, steered)
            another_model_takes_its_place(visitor, Plain(repositories / GPT2, TOKENS).generated(CHAT))
            visitor.loads(GEMMA)
            assert visitor.says().text == base
            before = it_is_steered(visitor, steered)
        with visited(tmp_path, variables) as visitor:
            all_is_back(visitor, before)
            visitor.server.process.kill()
        assert hub.requests == []
    with visited(tmp_path, variables) as visitor:
        all_is_back(visitor, before)
    with visited(tmp_path, variables, "--no-restore") as visitor:
        assert visitor.is_loaded_and_attached == (None, [])
        assert visitor.api.get("/api/status")["status"] == "empty"


def direction(repositories: Path) -> torch.Tensor:
    """Of the feature: its decoder row, scaled to unit length, from the file."""
    with np.load(repositories / SCOPE_SAE.removesuffix(SCOPE_PATH) / SCOPE_PATH / "params.npz") as parts:
        row = torch.from_numpy(parts["W_dec"][FEATURE])
    return row / row.norm()


def a_model_is_downloaded(visitor: Visitor, hub: FakeHub) -> None:
    api = visitor.api
    preview = api.post("/api/models/preview", {"id": GEMMA})
    assert (preview["licence"], preview["architecture"]) == ("gemma", "Gemma2ForCausalLM")
    assert preview["known_saes"] > 0
    hub.speed = SLOW
    with api.listening() as socket:
        job = api.post("/api/models", {"id": GEMMA})
        heard = events_until(socket, lambda event: event["type"] == "library")
    hub.speed = None
    assert_told_often([event["job"] for event in heard if event["type"] == "job" and event["job"]["id"] == job["id"]])
    entry = api.get(f"/api/models/{GEMMA}")
    assert (entry["state"], entry["is_verified"], entry["commit"]) == ("whole", True, preview["commit"])
    assert entry["size"] == preview["size"] == preview["to_download"]
    assert [entry["id"] for entry in api.get("/api/models")["models"] if entry["origin"] == "hub"] == [GEMMA]


def assert_told_often(jobs: list[dict[str, Any]]) -> None:
    """Twice a second while bytes move, and how many."""
    moving = [job for job in jobs if job["state"] == "running" and 0 < job["done"] < job["total"]]
    took = moving[-1]["updated"] - moving[0]["updated"]
    assert took > 1
    assert len(moving) - 1 >= 2 * took
    done = [job["done"] for job in moving]
    assert done == sorted(done)
    assert len(set(done)) > 2
    assert any(job["speed"] and job["seconds_left"] for job in moving)
    assert jobs[-1]["state"] == "installed"


def it_is_loaded_as_estimated(visitor: Visitor) -> None:
    estimate = visitor.api.post("/api/models/estimate", {"id": GEMMA, "saes": [SCOPE_SAE]})
    assert estimate["verdict"] == "fits"
    assert estimate["saes"] > 0
    facts = visitor.loads(GEMMA)["model"]["facts"]
    assert facts["memory"]["weights"] == pytest.approx(estimate["weights"], rel=0.1)
    assert facts["layers"] > LAYER


def it_is_steered(visitor: Visitor, expected: str) -> Said:
    """Attached and steered like plain transformers."""
    attached = visitor.attaches()
    assert attached["hook_point"] == f"blocks.{LAYER}.hook_resid_post"
    visitor.steers()
    said = visitor.says()
    assert said.text == expected
    assert said.receipt["steering"] == visitor.api.get("/api/status")["steering"]["fingerprint"]
    assert said.receipt["tokens_steered"] == said.tokens - UNSTEERED
    return said


def it_is_detached(visitor: Visitor, base: str) -> None:
    assert visitor.api.delete(f"/api/attachments/{SCOPE_SAE}")["saes"] == []
    said = visitor.says()
    assert (said.text, said.receipt["steering"]) == (base, None)


def another_model_takes_its_place(visitor: Visitor, expected: str) -> None:
    """Nothing of the previous model remains."""
    visitor.loads(GPT2)
    assert visitor.is_loaded_and_attached == (GPT2, [])
    assert visitor.api.get("/api/steering")["steering"] is None
    said = visitor.says(GPT2)
    assert (said.text, said.receipt["steering"]) == (expected, None)


def all_is_back(visitor: Visitor, before: Said) -> None:
    """Restored without a request, to the last byte."""
    assert visitor.is_loaded_and_attached == (GEMMA, [SCOPE_SAE])
    assert visitor.says() == before
