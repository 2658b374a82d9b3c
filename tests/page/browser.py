"""Run a journey of `ui/e2e` in Chromium; it may call functions of this process."""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

UI = Path(__file__).parents[2] / "ui"
PATIENCE = 240

Deed = Callable[[], Any]


def journey(name: str, url: str, deeds: Mapping[str, Deed] | None = None, pictures: Path | None = None) -> Any:
    """The journey's result. Its first problem fails the test."""
    chromium = shutil.which("chromium")
    assert chromium, "this needs Chromium: apt-get install chromium"
    assert (UI / "node_modules").is_dir(), "run `make page` first"
    request = {"journey": name, "url": url, "chromium": chromium, "pictures": pictures and str(pictures)}
    with subprocess.Popen(
        ["node", str(UI / "e2e" / "run.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        assert process.stderr
        try:
            result = _followed(process.stdin, process.stdout, request, deeds or {})
            if result is None:
                raise AssertionError(process.stderr.read()[-4000:])
            return result["told"]
        finally:
            process.kill()


def _followed(to: Any, back: Any, request: Mapping[str, Any], deeds: Mapping[str, Deed]) -> Any:
    """None without a result."""
    _write(to, request)
    for line in back:
        message = json.loads(line)
        if "told" in message:
            return message
        _write(to, deeds[message["ask"]]())
    return None


def _write(to: Any, what: Any) -> None:
    to.write(json.dumps(what) + "\n")
    to.flush()
