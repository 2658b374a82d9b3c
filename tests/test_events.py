"""The event bus: publishing never waits, and a slow subscriber gets the number of lost events."""

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


def test_events_arrive_once_in_order() -> None:
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


def test_event_is_encoded_once_for_all_subscriptions() -> None:
    async def scenario() -> None:
        events = EventBus()
        with events.subscribe() as one, events.subscribe() as other:
            events.publish(event(1))
            assert (await one.receive_all())[0].json is (await other.receive_all())[0].json

    asyncio.run(scenario())


def test_slow_subscriber_loses_oldest_events_and_gets_their_count() -> None:
    async def scenario() -> None:
        events = EventBus()
        with events.subscribe() as slow:
            for number in range(MAX_PENDING_EVENTS + 1000):
                events.publish(event(number))
            result, *stored = events_of(await slow.receive_all())
            assert result == Dropped(count=1000)
            assert stored == [event(number) for number in range(1000, MAX_PENDING_EVENTS + 1000)]
            events.publish(event(0))
            assert events_of(await slow.receive_all()) == [event(0)]

    asyncio.run(scenario())


JOB = DownloadJob(
    id="1", asked=DownloadSpec(kind="sae", repository="a/b"), name="a/b", state="running", created=0, updated=0
)
LOADING = ChangeProgress(what="tiny", stage="reading", done=0, total=9)
STATUS = StatusChanged(status="ready", model="tiny", saes=(), degraded=None)


def received(events: Iterable[Event], pause: float = 0.0) -> list[Event]:
    """Events received by a subscriber, with a pause between publications."""

    async def scenario() -> list[Event]:
        mail = EventBus()
        with mail.subscribe() as listener:
            for each in events:
                mail.publish(each)
                time.sleep(pause)
            return events_of(await listener.receive_all())

    return asyncio.run(scenario())


def test_progress_events_are_throttled() -> None:
    steps = [JobChanged(job=replace(JOB, done=done)) for done in range(50)]
    assert received(steps) == steps[:1]
    assert 3 <= len(received(steps, pause=0.02)) <= MAX_PROGRESS_PER_SECOND + 1
    loading = [replace(LOADING, done=done) for done in range(9)]
    assert received(loading) == loading[:1]


def test_state_changes_pass_the_throttle() -> None:
    states = [JobChanged(job=replace(JOB, state=state)) for state in ("queued", "running", "verifying", "installed")]
    assert received([*states, *states]) == [*states, *states], "gone on with, it is new again"
    others = [JobChanged(job=replace(JOB, id=str(number))) for number in range(9)]
    assert received(others) == others
    changes = [LOADING, replace(LOADING, stage="testing"), replace(LOADING, what="other"), STATUS, LOADING]
    assert received(changes) == changes


def test_installed_job_publishes_library_change() -> None:
    async def scenario() -> None:
        events = EventBus()
        with events.subscribe() as listener:
            events.publish_job(JOB)
            events.publish_job(replace(JOB, state="installed"))
            *jobs, brought = events_of(await listener.receive_all())
            assert [event.job.state for event in jobs if isinstance(event, JobChanged)] == ["running", "installed"]
            assert brought == LibraryChanged(kind="sae", name="a/b")

    asyncio.run(scenario())
