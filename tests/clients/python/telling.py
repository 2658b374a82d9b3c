"""What every Python client does around its own features: take the task from stdin, tell on stdout what was seen."""

import json
import sys
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

Task = SimpleNamespace
"""`base_url`, `model`, `question` and all else that conftest.py puts there."""


def tell(*features: Callable[[Task], Any]) -> None:
    """Run those that are asked for; each function is a feature of its own name."""
    asked = json.load(sys.stdin)
    task = Task(**asked["task"])
    by_name = {feature.__name__.rstrip("_"): feature for feature in features}
    json.dump({name: _seen(by_name[name], task) for name in asked["features"]}, sys.stdout)


def raised_by(call: Callable[[], Any]) -> dict[str, str]:
    """The class and the text of what a client raises."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - whichever it is, it is what the test asks about
        return {"class": type(error).__name__, "message": str(error)}
    return {"class": "nothing was raised", "message": ""}


def _seen(feature: Callable[[Task], Any], task: Task) -> dict[str, Any]:
    try:
        return {"seen": feature(task)}
    except Exception:  # noqa: BLE001 - a process's edge: one feature that fails leaves the others to be seen
        return {"failed": traceback.format_exc()}
