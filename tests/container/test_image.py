"""The image, built and run as root without a Docker daemon, by `tools/image`."""

import os
import subprocess
import sys

import pytest

from tests.container.composing import ROOT
from tools.image.__main__ import RECORD

pytestmark = [pytest.mark.image, pytest.mark.timeout(2400)]


def test_the_image_steers_without_a_network() -> None:
    """The report is docs/verification/image.txt."""
    building = [sys.executable, "-m", "tools.image", "--torch-index", os.environ.get("TORCH_INDEX", "")]
    done = subprocess.run(building, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-4000:]}"
    record = RECORD.read_text("utf-8")
    assert record.count("exit code after SIGTERM: 0") == 2
    assert "steering changed the text: True" in record
