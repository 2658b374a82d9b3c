"""The prompts that `millm bench` asks: the same on every machine, every one different from its first words on.

The difference keeps a server from answering out of what it remembers of an earlier prompt.
"""

import random
from collections.abc import Sequence

PROMPT_LENGTHS = (32, 128, 512)
"""Tokens of a prompt, more or less: a tokenizer and a chat template each have their own idea of it."""

_SENTENCES = (
    "The harbour lies quiet before the boats come back.",
    "A narrow path leads from the mill to the old bridge.",
    "In the kitchen the bread cools beside the open window.",
    "The train leaves at noon and arrives in the evening.",
    "Two gardeners plant beans along the southern wall.",
    "Every spring the river carries sand to the lower fields.",
    "The library keeps its maps in a room without windows.",
    "Rain is expected after sunset, with wind from the west.",
    "The clock in the square has been slow since March.",
    "Children fly paper kites on the hill behind the school.",
    "A painter mixes blue and white for the winter sky.",
    "The baker opens early and sells the last loaf by ten.",
)
_TOKENS_PER_SENTENCE = 11
_FRAME_TOKENS = 21
"""Of what stands before and after the sentences."""


def make_prompt(number: int, tokens: int) -> str:
    """Prompt number `number` of about `size` tokens."""
    rng = random.Random(number)  # noqa: S311  variety, not secrets
    count = max(1, round((tokens - _FRAME_TOKENS) / _TOKENS_PER_SENTENCE))
    sentences = " ".join(rng.choice(_SENTENCES) for _ in range(count))
    task = "Continue these notes at length, in whole sentences and plain words."
    return f"{number} notes about a small town. {sentences} {task}"


def make_prompts(first: int, count: int, lengths: Sequence[int] = PROMPT_LENGTHS) -> list[str]:
    """`count` prompts from number `first` on, the sizes in turn."""
    return [make_prompt(number, lengths[number % len(lengths)]) for number in range(first, first + count)]
