"""The benchmark's prompts: as long as they say, never the same, the same everywhere."""

import hashlib
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from millm.cli.bench import PROMPT_LENGTHS, make_prompt, make_prompts


@pytest.mark.demo
@pytest.mark.parametrize("size", PROMPT_LENGTHS)
def test_a_prompt_has_about_the_tokens_it_says(size: int, demo_folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(demo_folder / "tokenizer.json"))
    lengths = [len(tokenizer.encode(make_prompt(number, size)).ids) for number in range(40)]
    assert sum(lengths) / len(lengths) == pytest.approx(size, rel=0.1)


def test_prompts_differ_from_their_first_words_on_and_take_the_sizes_in_turn() -> None:
    asked = make_prompts(10, 9)
    assert len({text.split()[0] for text in asked}) == 9
    assert asked[0] == make_prompt(10, PROMPT_LENGTHS[10 % 3])
    assert asked[2:] == make_prompts(12, 7)


def test_prompts_are_the_same_on_every_machine() -> None:
    """They are part of what a figure means: whoever changes them makes all earlier figures incomparable."""
    text = "\n".join(make_prompts(0, 30))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "c50357f9d1fd0026"
