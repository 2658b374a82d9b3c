"""The machine that figures were measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

from millm import __version__
from millm.hardware import read_driver


def describe() -> dict[str, object]:
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "transformers")},
        "millm": __version__,
        **_gpus(),
    }


def _gpus() -> dict[str, object]:
    """Nothing where there are none."""
    driver = read_driver()
    return {"gpus": [gpu.name for gpu in driver.gpus], "driver": driver.version} if driver and driver.gpus else {}


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
