"""Random text that a grammar allows."""

import random

import numpy as np
from llguidance import LLMatcher, LLTokenizer

MAX_TOKENS = 2000


def sample_text(tokens: LLTokenizer, grammar: str, seed: int) -> str:
    """A text of random tokens, each of which the grammar allows."""
    matcher, pick, ids = LLMatcher(tokens, grammar), random.Random(seed), []
    while not matcher.is_stopped():
        mask = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        ids.append(pick.choice(mask.nonzero()[0].tolist()))
        matcher.consume_token(ids[-1])
        assert not matcher.is_error(), matcher.get_error()
        assert len(ids) < MAX_TOKENS, "no end"
    return tokens.decode_bytes([id for id in ids if id != 2]).decode()
