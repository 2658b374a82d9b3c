"""Whether a checkpoint can write: has it a head that turns hidden states into tokens? By what it calls itself."""

import re
from collections.abc import Mapping
from pathlib import Path

from millm.text.folder import read_json

_HEADLESS_ARCHITECTURE = re.compile(r"\w+ForMaskedLM|\w+(?<!LMHead)(?<!DoubleHeads)Model")


def is_generative_model(folder: Path) -> bool:
    """False for `BertModel`, `BertForMaskedLM` and the like, which only embed. What has no name is tried as a writer.

    Raises InvalidModel for a config.json that is none.
    """
    return is_generative_config(read_json(folder, "config.json"))


def is_generative_config(config: Mapping[str, object]) -> bool:
    """The same of a configuration that was read."""
    architectures = config.get("architectures")
    names = [str(name) for name in architectures] if isinstance(architectures, list) else []
    return not names or not all(_HEADLESS_ARCHITECTURE.fullmatch(name) for name in names)
