"""The mailboxes: nobody waits for a listener, and a slow one is told what it missed."""

import asyncio
import time
from collections.abc import Iterable

from msgspec.structs import replace

from millm.events import (
    MAX_PENDING_EVENTS,
    MAX_PROGRESS_PER_SECOND,
    ChangeProgress,
    Dropped,
    EncodedEvent,
    Event,
    EventBus,
    JobChanged,
    LibraryChanged,
    StatusChanged,
    SteeringChanged,
)
from millm.hub.jobs import DownloadJob, DownloadSpec


def event(number: int) -> SteeringChanged:
    return SteeringChanged(version=1, profile=str(number), fingerprint=None)


def events_of(letters: Iterable[EncodedEvent]) -> list[Event]:
    return [letter.event for letter in letters]


def test_everything_comes_once_in_order() -> None:
    async def scenario() -> None:
        events = EventBus()
        with events.subscribe() as one, events.subscribe() as other:
            assert len(events) == 2
            for number in range(5):
                events.publish(event(number))
            assert events_of(await one.receive_all()) == [event(number) for number in range(5)]
            taking = asyncio.create_task(one.receive_all())
            await asyncio.sleep(0)
            assert not taking.done()
            events.publish(event(5))
            assert events_of(await taking) == [event(5)]
            assert len(await other.receive_all()) == 6
        assert len(events) == 0

    asyncio.run(scenario())


def test_an_event_is_written_once_however_many_listen() -> None:
    async def scenario() -> None:
        events = EventBus()
        with events.subscribe() as one, events.subscribe() as other:
            events.publish(event(1))
            assert (await one.receive_all())[0].json is (await other.receive_all())[0].json

    asyncio.run(scenario())


def test_a_slow_listener_keeps_the_latest_and_is_told_what_it_missed() -> None:
    async def scenario() -> None:
        events = EventBus()
        with events.subscribe() as slow:
            for number in range(MAX_PENDING_EVENTS + 1000):
                events.publish(event(number))
            told, *kept = events_of(await slow.receive_all())
            assert told == Dropped(count=1000)
            assert kept == [event(number) for number in range(1000, MAX_PENDING_EVENTS + 1000)]
            events.publish(event(0))
            assert events_of(await slow.receive_all()) == [event(0)]

    asyncio.run(scenario())


JOB = DownloadJob(
    id="1", asked=DownloadSpec(kind="sae", repository="a/b"), name="a/b", state="running", created=0, updated=0
)
LOADING = ChangeProgress(what="tiny", stage="reading", done=0, total=9)
STATUS = StatusChanged(status="ready", model="tiny", saes=(), degraded=None)


def heard(events: Iterable[Event], pause: float = 0.0) -> list[Event]:
    """What a listener hears of these, with a pause between them."""

    async def scenario() -> list[Event]:
        mail = EventBus()
        with mail.subscribe() as listener:
            for each in events:
                mail.publish(each)
                time.sleep(pause)
            return events_of(await listener.receive_all())

    return asyncio.run(scenario())


def test_of_progress_not_every_step_is_told() -> None:
    steps = [JobChanged(job=replace(JOB, done=done)) for done in range(50)]
    assert heard(steps) == steps[:1]
    assert 3 <= len(heard(steps, pause=0.02)) <= MAX_PROGRESS_PER_SECOND + 1
    loading = [replace(LOADING, done=done) for done in range(9)]
    assert heard(loading) == loading[:1]


def test_what_is_done_is_always_told_and_each_thing_by_itself() -> None:
    states = [JobChanged(job=replace(JOB, state=state)) for state in ("queued", "running", "verifying", "installed")]
    assert heard([*states, *states]) == [*states, *states], "gone on with, it is new again"
    others = [JobChanged(job=replace(JOB, id=str(number))) for number in range(9)]
    assert heard(others) == others
    changes = [LOADING, replace(LOADING, stage="testing"), replace(LOADING, what="other"), STATUS, LOADING]
    assert heard(changes) == changes


def test_a_job_that_has_brought_something_says_so() -> None:
    async def scenario() -> None:
        events = EventBus()
        with events.subscribe() as listener:
            events.publish_job(JOB)
            events.publish_job(replace(JOB, state="installed"))
            *jobs, brought = events_of(await listener.receive_all())
            assert [event.job.state for event in jobs if isinstance(event, JobChanged)] == ["running", "installed"]
            assert brought == LibraryChanged(kind="sae", name="a/b")

    asyncio.run(scenario())
