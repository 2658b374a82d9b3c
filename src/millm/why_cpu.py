"""Why the CPU does the work where a GPU might, and the command that changes it. Knows no torch, only what it said."""

from pathlib import Path

import msgspec

from millm.engine.messages import Platform
from millm.gpus import Driver, visible_gpus

_OLDEST_CUDA = 12
"""There is no torch of ours for a driver that only runs an older one."""
_WHEELS = {12: "cu126", 13: "cu130"}
"""The builds of torch that run on any driver of that CUDA (within 12 and within 13, newer and older go together)."""


class CpuFallbackReason(msgspec.Struct, frozen=True, kw_only=True):
    """Why the CPU does the work."""

    message: str
    fix: str = ""
    """What mends it; empty where there is nothing to mend."""


def has_device_file() -> bool:
    """A GPU as the operating system sees it, whatever a driver or torch does."""
    return any(next(Path("/dev").glob(name), None) for name in ("nvidia[0-9]*", "kfd", "dxg"))


def cpu_fallback_reason(
    platform: Platform, driver: Driver | None, cuda_visible_devices: str | None, has_file: bool
) -> CpuFallbackReason | None:
    """None where torch has a GPU. `shown`: `CUDA_VISIBLE_DEVICES`; `has_file`: of some GPU, whoever made it."""
    if platform.devices:
        return None
    if driver is None or not driver.gpus:
        return (
            _no_driver_reason(platform)
            if has_file
            else CpuFallbackReason(message="no GPU was found: the CPU does the work")
        )
    if not visible_gpus(driver.gpus, cuda_visible_devices):
        return CpuFallbackReason(
            message=f"CUDA_VISIBLE_DEVICES={cuda_visible_devices!r} hides the {driver.gpus[0].name}",
            fix="unset CUDA_VISIBLE_DEVICES",
        )
    return _unusable_gpu_reason(platform, driver)


def _no_driver_reason(platform: Platform) -> CpuFallbackReason:
    return CpuFallbackReason(
        message=f"a GPU is present but this torch cannot use it: torch {_torch_build(platform)}, and no NVIDIA driver answers",
        fix="install the GPU's driver (in a container: start it with the GPU), and the torch that"
        " https://pytorch.org names for it",
    )


def _unusable_gpu_reason(platform: Platform, driver: Driver) -> CpuFallbackReason:
    major, cuda = driver.cuda[0], f"{driver.cuda[0]}.{driver.cuda[1]}"
    if major < _OLDEST_CUDA:
        fix = f"update the NVIDIA driver to 525 or later: there is no torch for CUDA {cuda}"
    elif _torch_cuda_major(platform) == major:
        fix = "restart the machine if the driver was updated (in a container: start it with the GPU); `nvidia-smi` says"
    else:
        fix = pip_command(platform, driver)
    return CpuFallbackReason(
        message=f"a GPU is present ({driver.gpus[0].name}) but this torch cannot use it: driver {driver.version}"
        f" (CUDA {cuda}), torch {_torch_build(platform)}",
        fix=fix,
    )


def pip_command(platform: Platform, driver: Driver) -> str:
    """What installs the build of the same torch that this driver runs."""
    wheels = _WHEELS[min(driver.cuda[0], max(_WHEELS))]
    version = platform.torch.partition("+")[0]
    return f"pip install --force-reinstall torch=={version} --index-url https://download.pytorch.org/whl/{wheels}"


def _torch_build(platform: Platform) -> str:
    return f"{platform.torch} is built for {platform.built_for or 'the CPU only'}"


def _torch_cuda_major(platform: Platform) -> int | None:
    """The major version of the CUDA that torch is built for."""
    name, _, version = (platform.built_for or "").partition(" ")
    return int(version.partition(".")[0]) if name == "CUDA" and version else None
