"""The mailboxes: nobody waits for a listener, and a slow one is told what it missed."""

import asyncio

from millm.events import MAILBOX, Dropped, Events, SteeringChanged


def event(number: int) -> SteeringChanged:
    return SteeringChanged(profile=str(number), fingerprint=None)


def test_everything_comes_once_in_order() -> None:
    async def scenario() -> None:
        events = Events()
        with events.listening() as one, events.listening() as other:
            assert len(events) == 2
            for number in range(5):
                events.publish(event(number))
            assert await one.take() == [event(number) for number in range(5)]
            taking = asyncio.create_task(one.take())
            await asyncio.sleep(0)
            assert not taking.done()
            events.publish(event(5))
            assert await taking == [event(5)]
            assert len(await other.take()) == 6
        assert len(events) == 0

    asyncio.run(scenario())


def test_a_slow_listener_keeps_the_latest_and_is_told_what_it_missed() -> None:
    async def scenario() -> None:
        events = Events()
        with events.listening() as slow:
            for number in range(MAILBOX + 1000):
                events.publish(event(number))
            told, *kept = await slow.take()
            assert told == Dropped(count=1000)
            assert kept == [event(number) for number in range(1000, MAILBOX + 1000)]
            events.publish(event(0))
            assert await slow.take() == [event(0)]

    asyncio.run(scenario())
