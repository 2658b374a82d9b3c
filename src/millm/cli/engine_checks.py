"""What `millm doctor` finds out about torch, the GPU and bitsandbytes: a child asks them, and no torch is left here."""

import os
import subprocess
import sys

import msgspec

from millm.cli.finding import CheckResult
from millm.hardware import CpuFallbackReason, Platform, cpu_fallback_reason, has_device_file, read_driver

_PROBE_SECONDS = 120

_PROBE_SCRIPT = """
import json, torch
cuda = torch.cuda.is_available()
built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else torch.version.hip and f"ROCm {torch.version.hip}"
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else []
told = {"torch": torch.__version__, "built_for": built_for, "threads": torch.get_num_threads(), "devices": names}
try:
    import bitsandbytes
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    ones = torch.ones(64, 64, dtype=torch.bfloat16, device="cuda" if cuda else "cpu")
    works = torch.allclose(dequantize_4bit(*quantize_4bit(ones)), ones, atol=0.1)
    told |= {"bitsandbytes": bitsandbytes.__version__, "problem": "" if works else "it computes wrong numbers"}
except Exception as error:
    told |= {"problem": f"{type(error).__name__}: {error}".splitlines()[0]}
print(json.dumps(told))
"""


class TorchProbe(msgspec.Struct, frozen=True, kw_only=True):
    """What the child found."""

    torch: str
    built_for: str | None
    threads: int
    devices: tuple[str, ...]
    bitsandbytes: str = ""
    """Its version; empty if it cannot be imported or used."""
    problem: str = ""
    """Of bitsandbytes."""

    @property
    def platform(self) -> Platform:
        return Platform(torch=self.torch, built_for=self.built_for, threads=self.threads, devices=self.devices)


def check_engine(python: str = sys.executable) -> list[CheckResult]:
    """Asks that Python."""
    told = probe_torch(python)
    if isinstance(told, CheckResult):
        return [told]
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [
        check_torch(told, cpu_fallback_reason(told.platform, read_driver(), shown, has_device_file())),
        check_bitsandbytes(told),
    ]


def probe_torch(python: str) -> TorchProbe | CheckResult:
    """A finding where there is no torch that answers."""
    again = "install it again: pip install torch==2.13.0 (the CPU build; https://pytorch.org says which for a GPU)"
    try:
        asked = subprocess.run(  # noqa: S603  our own interpreter
            [python, "-c", _PROBE_SCRIPT], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=True
        )
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["it ended without a word"]
        return CheckResult("torch", "failure", f"torch cannot be imported ({lines[-1]})", again)
    except subprocess.TimeoutExpired:
        return CheckResult("torch", "failure", f"torch did not start within {_PROBE_SECONDS} s", again)
    return msgspec.json.decode(asked.stdout.splitlines()[-1], type=TorchProbe)


def check_torch(probe: TorchProbe, reason: CpuFallbackReason | None) -> CheckResult:
    """`reason`: why the CPU does the work, if it does."""
    name = f"torch {probe.torch}"
    if reason is None:
        return CheckResult("torch", "ok", f"{name} on {', '.join(probe.devices)}")
    if reason.fix:
        return CheckResult("torch", "warning", reason.message, f"{reason.fix} (or go on with the CPU)")
    return CheckResult("torch", "ok", f"{name}; {reason.message}")


def check_bitsandbytes(probe: TorchProbe) -> CheckResult:
    """Whether weights can be loaded in 4 and 8 bits on the device that does the work."""
    device = "the GPU" if probe.devices else "the CPU"
    if probe.problem:
        detail = f"weights cannot be loaded in 4 or 8 bits on {device} ({probe.problem})"
        return CheckResult("bitsandbytes", "warning", detail, 'pip install --force-reinstall "bitsandbytes>=0.50"')
    return CheckResult(
        "bitsandbytes", "ok", f"bitsandbytes {probe.bitsandbytes} works on {device}: 4-bit and 8-bit weights"
    )
