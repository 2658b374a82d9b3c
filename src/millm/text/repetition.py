"""How much a text says again what it said before: a sign of a model that has lost the thread."""


def repeated_trigram_share(text: str) -> float:
    """Share (0 to 1) of the text's 3-word sequences that stood in it before; words are separated by white space."""
    words = text.lower().split()
    triples = [tuple(words[start : start + 3]) for start in range(len(words) - 2)]
    return 1 - len(set(triples)) / len(triples) if triples else 0.0
