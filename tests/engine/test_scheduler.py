"""Who runs next, under random arrivals, cancellations and lengths."""

from hypothesis import given, settings
from hypothesis import strategies as st

from millm.engine.messages import Generate
from millm.engine.scheduler import Scheduler

arrivals = st.lists(
    st.tuples(
        st.integers(0, 20),  # step of arrival
        st.integers(1, 6),  # prompt length
        st.integers(1, 8),  # tokens to generate
        st.none() | st.integers(0, 30),  # step of cancellation
    ),
    max_size=12,
)


@given(arrivals=arrivals, capacity=st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_every_sequence_runs_in_order_and_ends(arrivals: list[tuple[int, int, int, int | None]], capacity: int) -> None:
    """Each token is fed once and in order, never more than `capacity` at once, first come first started."""
    scheduler = Scheduler(capacity)
    started: list[str] = []
    fed: dict[str, list[int]] = {}
    ended: set[str] = set()
    for step in range(200):
        for number, (at, prompt, length, _) in enumerate(arrivals):
            if at == step:
                scheduler.add(Generate(id=str(number), prompt=tuple(range(prompt)), max_tokens=length))
        for number, (_, _, _, cancel_at) in enumerate(arrivals):
            if cancel_at == step:
                scheduler.cancel(str(number))
        ended |= {sequence.id for sequence in scheduler.take_cancelled()}
        started += [sequence.id for sequence in scheduler.admit()]
        plan = scheduler.plan()
        assert len(plan.rows) <= capacity
        for row in plan.rows:
            assert not row.sequence.cancelled
            assert row.start == row.sequence.fed
            fed.setdefault(row.sequence.id, []).extend(row.tokens)
            row.sequence.fed += len(row.tokens)
            row.sequence.generated.append(100 + len(row.sequence.generated))
            if row.sequence.is_at_limit:
                scheduler.remove(row.sequence)
                ended.add(row.sequence.id)
    order = sorted(range(len(arrivals)), key=lambda number: (arrivals[number][0], number))
    cancelled_in_time = {str(n) for n, (at, _, _, cancel) in enumerate(arrivals) if cancel is not None and cancel >= at}
    never_started = set(map(str, order)) - set(started)
    assert started == [str(number) for number in order if str(number) not in never_started]
    assert never_started <= cancelled_in_time
    assert scheduler.is_idle
    assert ended == set(map(str, range(len(arrivals))))
    for number, tokens in fed.items():
        _, prompt, length, _ = arrivals[int(number)]
        whole = [*range(prompt), *range(100, 100 + length - 1)]
        assert tokens == whole[: len(tokens)]
        assert number in cancelled_in_time or tokens == whole
