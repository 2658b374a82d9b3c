"""The small JSON files of a model folder, read whole or refused by name; knows nothing about what is in them."""

import json
from pathlib import Path

from millm.errors import InvalidModel


def read_json(folder: Path, name: str) -> dict[str, object]:
    """The object in `folder/name`, {} when there is no such file. Raises InvalidModel when it is not an object.

    Python's own reader: configurations hold `Infinity`, which strict JSON has not.
    """
    path = folder / name
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidModel(f"the model's {name} is not a JSON object; download that file again")
    return value
