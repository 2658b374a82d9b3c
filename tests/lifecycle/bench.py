"""The server under the state machine: how each change is made, and the expected answers."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from millm.engine.messages import FaultPoint, InjectFault
from millm.engine.supervisor import CrashLimiter
from millm.lifecycle.changes import unload_when_idle
from millm.lifecycle.models import cancel_load, load, unload
from millm.lifecycle.restore import restore
from millm.lifecycle.saes import attach, detach
from millm.lifecycle.selection import resolve_active
from millm.lifecycle.steering import activate
from millm.profiles.schema import SteeringRequest
from millm.status import DesiredState, ModelSpec, SaeSpec, read_desired
from tests.fixtures.inside import Inside
from tests.lifecycle.asking import Stream, post, streaming, text
from tests.lifecycle.expected import Steered, place

SHORT, LONG = 5, 24
"""Tokens of an answer; of one beside which something changes."""

MODELS = (
    ModelSpec(id="tiny-llama"),
    ModelSpec(id="tiny-llama", slots=2, context=96),
    ModelSpec(id="tiny-llama", dtype="bfloat16"),
    ModelSpec(id="other-llama"),
    ModelSpec(id="gpt2"),
)


FEATURE = {"index": 3, "strength": 20}


def knob(sae: str) -> dict[str, Any]:
    return {"features": [{**FEATURE, "sae": sae}]}


class Bench:
    def __init__(self, inside: Inside) -> None:
        self.inside, self.state = inside, inside.state
        self._references: dict[tuple[ModelSpec, str | None, str | None, int], str] = {}

    @property
    def asleep(self) -> bool:
        return self.state.asleep is not None

    # ------------------------------------------------------------------------------------------------- changes

    def load(self, wanted: ModelSpec) -> None:
        self.inside.run(load(self.state, wanted))

    def unload(self) -> None:
        self.inside.run(unload(self.state))

    def attach(self, wanted: SaeSpec) -> None:
        self.inside.run(attach(self.state, wanted))

    def detach(self, sae: str) -> None:
        self.inside.run(detach(self.state, sae))

    def activate(self, wanted: Steered | None) -> None:
        async def make_active() -> None:
            if wanted is None:
                await activate(self.state, None)
            elif wanted.profile:
                await activate(self.state, resolve_active(self.state, profile=wanted.profile))
            else:
                asked = SteeringRequest.model_validate(knob(wanted.sae))
                await activate(self.state, resolve_active(self.state, steering=asked))

        self.inside.run(make_active())

    def load_and_give_up(self, wanted: ModelSpec) -> None:
        async def begin_and_give_up() -> None:
            loading = asyncio.create_task(load(self.state, wanted))
            while self.state.load_in_progress is None and not loading.done():
                await asyncio.sleep(0)
            if self.state.load_in_progress:
                cancel_load(self.state)
            await loading

        self.inside.run(begin_and_give_up())

    def inject(self, point: FaultPoint, kind: Any) -> None:
        self.inside.run(self.state.engine.inject(InjectFault(id="fault", point=point, kind=kind)))

    def kill(self) -> None:
        """SIGKILL the engine and wait for its restart; a third time within ten minutes would enter safe mode."""
        self.inside.kill_engine()
        self.until("ready", "empty", "asleep")
        self.state.engine._crash_limiter = CrashLimiter()

    def sleep(self) -> None:
        """Trigger the idle unload."""
        self._settings(keep_alive=0)

        async def until_asleep() -> None:
            idling = asyncio.create_task(unload_when_idle(self.state))
            while self.state.status != "asleep":
                await asyncio.sleep(0.002)
            idling.cancel()

        self.inside.run(until_asleep())
        self._settings(keep_alive=-1)

    def restart(self) -> None:
        """Restart the server from its database."""

        async def forget_and_restore() -> None:
            if self.state.engine.snapshot.model:
                await self.state.engine.unload()
            self.state.set_model(None)
            self.state.cause, self.state.desired = None, DesiredState()
            await restore(self.state, read_desired(self.state.hub.database))

        self.inside.run(forget_and_restore())
        assert self.state.cause is None, self.state.cause

    def delete(self, kind: str, id: str) -> httpx.Response:
        return httpx.delete(f"{self.inside.url}/api/{kind}/{id}", timeout=30, trust_env=False)

    def download(self, id: str) -> dict[str, Any]:
        """The finished job."""
        job: dict[str, Any] = httpx.post(f"{self.inside.url}/api/models", json={"id": id}, timeout=30).json()
        while job["state"] not in ("installed", "failed"):
            time.sleep(0.02)
            job = httpx.get(f"{self.inside.url}/api/jobs/{job['id']}", timeout=30).json()
        return job

    def until(self, *statuses: str) -> None:
        deadline = time.monotonic() + 60
        while self.state.status not in statuses or self.state.engine.status != "ready":
            assert time.monotonic() < deadline, self.state.status
            time.sleep(0.01)

    def _settings(self, **settings: object) -> None:
        self.state.settings = self.state.settings.model_copy(update=settings)

    # ------------------------------------------------------------------------------------------- what there is

    def situation(self) -> tuple[object, ...]:
        """The state that a failure must not change."""
        state, library = self.state, self.state.hub.library
        kept = {command.id: command for command in state.engine.snapshot.commands}
        on_disk = [(entry.id, entry.state) for entry in (*library.models(), *library.saes())]
        return (
            state.status, state.model, dict(state.saes), state.active, state.desired, read_desired(state.hub.database),
            kept, on_disk, state.engine.degraded_reason,
        )  # fmt: skip

    # -------------------------------------------------------------------------------------------------- answers

    def reference(self, model: ModelSpec, steered_by: SaeSpec | None, length: int) -> str:
        where = (steered_by.id, place(steered_by)) if steered_by else (None, None)
        return self._references[(model, *where, length)]

    def measure(self, model: ModelSpec, saes: tuple[SaeSpec, ...]) -> None:
        """The model's answer without steering."""
        self.load(model)
        for length in (SHORT, LONG):
            self._references[(model, None, None, length)] = self.ask(model, length)
        for sae in saes:
            self.attach(sae)
            for length in (SHORT, LONG):
                answer = self.ask(model, length, steering=knob(sae.id))
                assert answer != self._references[(model, None, None, length)], "so weak a knob tells nothing"
                self._references[(model, sae.id, place(sae), length)] = answer
            self.detach(sae.id)

    def ask(self, model: ModelSpec, length: int = SHORT, **fields: Any) -> str:
        return text(self.inside, model=model.id, max_tokens=length, **fields)

    def post(self, model: ModelSpec, length: int = SHORT, **fields: Any) -> httpx.Response:
        return post(self.inside, model=model.id, max_tokens=length, **fields)

    @contextmanager
    def streaming(self, model: ModelSpec, **fields: Any) -> Iterator[Stream]:
        with streaming(self.inside, model=model.id, max_tokens=LONG, **fields) as stream:
            yield stream
