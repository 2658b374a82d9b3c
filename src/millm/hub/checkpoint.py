"""What a model's or an SAE's folder must hold, seen from file names and headers alone: before anything heavy starts."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from millm.errors import InvalidModel, InvalidSae


def check_checkpoint(folder: Path) -> None:
    """Raises InvalidModel naming the file that is missing or cut short."""
    if not (folder / "config.json").is_file():
        raise InvalidModel(f"{folder.name} has no config.json: it is not a folder of a Hugging Face model")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise InvalidModel(f"{folder.name} has no .safetensors weights, the only kind that cannot run code when read")
    for path in weights:
        _check_whole(path)


def check_sae(folder: Path) -> None:
    """Raises InvalidSae when there are no weights; what is in them only the engine can judge."""
    if not any(path.suffix in (".safetensors", ".npz") for path in folder.iterdir()):
        raise InvalidSae(
            f"no SAE found in {folder.name}: it holds no .safetensors or .npz weights"
            " (a pickle such as .pt is not read, because it can run code: convert it)"
        )


def _check_whole(path: Path) -> None:
    """A safetensors file starts with where each tensor ends: opening it finds out whether they are all there."""
    try:
        with safe_open(path, framework="numpy"):
            return
    except (OSError, SafetensorError) as error:
        raise InvalidModel(f"{path.name} is cut short or damaged ({error}); download it again") from error
