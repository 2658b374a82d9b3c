"""What a model's or an SAE's folder must hold, seen from file names and headers alone: before anything heavy starts."""

from pathlib import Path

from millm.errors import InvalidModel, InvalidSae
from millm.hub import headers, screen
from millm.hub.tree import File, files_below
from millm.hub.whole import check_model_files

SCREENED_CONFIGS = ("config.json", "generation_config.json")
"""What transformers takes settings from."""


def check_model_folder(folder: Path, *, is_trusted: bool = False) -> None:
    """Raises InvalidModel naming the file that is missing, cut short or hostile, or RemoteCodeRefused.

    `is_trusted`: the operator lets this commit's own Python run.
    """
    files = _list_files(folder)
    if "config.json" not in files:
        raise InvalidModel(f"{folder.name} has no config.json: it is not a folder of a Hugging Face model")
    if "adapter_config.json" in files:
        raise InvalidModel(f"{folder.name} has an adapter (adapter_config.json); merge it into its model first")
    for name in SCREENED_CONFIGS:
        if name in files:
            screen.screen_config(headers.read_json_object(files[name]), name, is_trusted=is_trusted)
    condition = check_model_files(files)
    if condition.problem:
        raise InvalidModel(f"{folder.name}: {condition.problem}".replace(": it has", " has"))


def check_sae_folder(folder: Path) -> None:
    """Raises InvalidSae when there are no weights; what is in them only the engine can judge."""
    if not any(path.suffix in (".safetensors", ".npz") for path in folder.iterdir()):
        raise InvalidSae(
            f"no SAE found in {folder.name}: it holds no .safetensors or .npz weights"
            " (a pickle such as .pt is not read, because it can run code: convert it)"
        )


def _list_files(folder: Path) -> dict[str, File]:
    try:
        return files_below(folder)
    except OSError as error:
        raise InvalidModel(f"{folder.name} cannot be read ({error.strerror})") from error
