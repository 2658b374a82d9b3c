"""What ships inside our own package for the demo: the SAE with its labels, and the profiles."""

from pathlib import Path

MODEL_NAME = "smollm2-135m-instruct"
SAE_NAME = "smollm2-135m-l20-4k"

_HERE = Path(__file__).parent
SAE_FOLDER = _HERE / "sae"
PROFILES_FOLDER = _HERE / "profiles"


def profile_files() -> list[Path]:
    return sorted(PROFILES_FOLDER.glob("*.json"))
