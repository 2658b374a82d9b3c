"""Both runners match `generate` for every architecture."""

import pytest
import torch

from millm.engine.messages import Generate, LoadModel
from millm.engine.model_runner import PlainRunner, Runner
from millm.engine.runner_selection import choose_runner
from millm.engine.scheduler import ScheduledRow, Scheduler, Sequence
from tests.engine import architectures

PROMPTS = (tuple(range(10, 30)), (5, 9, 101), tuple(range(90, 40, -1)), (77,))
NEW = 12


@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_plain_runner_matches_generate(name: str) -> None:
    model = architectures.build(name)
    expected = [architectures.greedy(model, prompt, NEW) for prompt in PROMPTS]
    assert run(PlainRunner(model)) == expected


def test_plain_runner_logits_are_bit_identical_to_generate() -> None:
    """Not only the tokens but also their logits."""
    model = architectures.build("llama")
    ids = torch.tensor([PROMPTS[0]])
    theirs = model.generate(
        ids, max_new_tokens=NEW, do_sample=False, eos_token_id=None, output_logits=True, return_dict_in_generate=True
    )
    runner = PlainRunner(model)
    sequence = Sequence.from_request(Generate(id="x", prompt=PROMPTS[0], max_tokens=NEW))
    for logits in theirs.logits:
        ours = runner.run((ScheduledRow(sequence, sequence.num_computed_tokens, sequence.uncomputed_tokens),))[:, -1]
        assert torch.equal(ours, logits)
        sequence.output_ids.append(int(ours.argmax()))


@pytest.mark.parametrize("name", architectures.BATCHED)
def test_slots_runner_matches_generate(name: str) -> None:
    """Prompts in chunks, rows joining and leaving, each at its own position."""
    model = architectures.build(name)
    expected = [architectures.greedy(model, prompt, NEW) for prompt in PROMPTS]
    choice = choose_runner(model, LoadModel(id="x", path="", slots=3), nothing_steered)
    assert (choice.name, choice.runner.capacity) == ("slots", 3), choice.reason
    choice.runner.prefill_chunk = 7
    assert run(choice.runner) == expected


@pytest.mark.parametrize("name", architectures.ONE_AT_A_TIME)
def test_unsupported_architectures_get_the_plain_runner_with_a_reason(name: str) -> None:
    choice = choose_runner(architectures.build(name), LoadModel(id="x", path=""), nothing_steered)
    assert choice.name == "plain"
    assert len(choice.reason) > 10


def test_self_test_detects_different_logits_in_slots() -> None:
    """The configuration has a sliding window that the model ignores."""
    model = architectures.build("llama")
    model.config.sliding_window = 2  # the masks believe it; Llama itself does not look at it
    choice = choose_runner(model, LoadModel(id="x", path=""), nothing_steered)
    assert choice.name == "plain"
    assert "logits differ" in choice.reason


def nothing_steered(_sequence: Sequence, _start: int, tokens: "tuple[int, ...]") -> list[bool]:
    return [False] * len(tokens)


def run(runner: Runner) -> list[list[int]]:
    """Run all prompts as the engine's loop does."""
    scheduler = Scheduler(runner.capacity, runner.prefill_chunk, runner.runs_alone)
    for index, prompt in enumerate(PROMPTS):
        scheduler.add(Generate(id=str(index), prompt=prompt, max_tokens=NEW))
    answers: dict[str, list[int]] = {}

    def place(sequence: Sequence) -> bool:
        if sequence.cache is None:
            runner.allocate(sequence, reuse=True)
        return True

    while not scheduler.is_idle:
        for _ in scheduler.admit(runner.fits):
            pass
        for rows in scheduler.plan(place):
            ordered = runner.sort_rows(rows)
            for row, logits in zip(ordered, runner.run(ordered)[:, -1], strict=True):
                assert logits.shape == (128,)
                if row.is_last_chunk:
                    choose(runner, scheduler, row.sequence, logits, answers)
    return [answers[str(n)] for n in range(len(PROMPTS))]


def choose(
    runner: Runner, scheduler: Scheduler, sequence: Sequence, logits: torch.Tensor, answers: dict[str, list[int]]
) -> None:
    sequence.output_ids.append(int(logits.argmax()))
    runner.commit(sequence)
    if sequence.is_at_limit:
        runner.release(sequence)
        assert sequence.cache is None
        scheduler.remove(sequence)
        answers[sequence.id] = sequence.output_ids
