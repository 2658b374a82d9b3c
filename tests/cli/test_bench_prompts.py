"""The prompts of `millm bench`: their lengths, and that they differ from each other but not between machines."""

import hashlib
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from millm.cli.bench import PROMPT_LENGTHS, make_prompt, make_prompts


@pytest.mark.demo
@pytest.mark.parametrize("size", PROMPT_LENGTHS)
def test_prompt_lengths_in_tokens(size: int, demo_folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(demo_folder / "tokenizer.json"))
    lengths = [len(tokenizer.encode(make_prompt(number, size)).ids) for number in range(40)]
    assert sum(lengths) / len(lengths) == pytest.approx(size, rel=0.1)


def test_prompts_differ_in_their_first_words_and_alternate_lengths() -> None:
    prompts = make_prompts(10, 9)
    assert len({text.split()[0] for text in prompts}) == 9
    assert prompts[0] == make_prompt(10, PROMPT_LENGTHS[10 % 3])
    assert prompts[2:] == make_prompts(12, 7)


def test_prompts_are_the_same_on_every_machine() -> None:
    """Changed prompts would make earlier results incomparable."""
    text = "\n".join(make_prompts(0, 30))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "c50357f9d1fd0026"
