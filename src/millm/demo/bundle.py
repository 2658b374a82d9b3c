"""What ships inside our own package for the demo: the SAE with its labels, and the profiles."""

from pathlib import Path

from millm.demo.lock import WEIGHTS_LOCK

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
