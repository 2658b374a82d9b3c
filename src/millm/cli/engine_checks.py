"""What `millm doctor` finds out about torch, the GPU and bitsandbytes: a child asks them, and no torch is left here."""

import os
import subprocess
import sys

import msgspec

from millm.cli.finding import Finding
from millm.engine.messages import Platform
from millm.gpus import driver
from millm.why_cpu import Reason, has_device_file, why_cpu

_SECONDS = 120

_ASK = """
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


class Told(msgspec.Struct, frozen=True, kw_only=True):
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


def engine(python: str = sys.executable) -> list[Finding]:
    """Asks that Python."""
    told = ask(python)
    if isinstance(told, Finding):
        return [told]
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [torch(told, why_cpu(told.platform, driver(), shown, has_device_file())), bitsandbytes(told)]


def ask(python: str) -> Told | Finding:
    """A finding where there is no torch that answers."""
    again = "install it again: pip install torch==2.13.0 (the CPU build; https://pytorch.org says which for a GPU)"
    try:
        asked = subprocess.run(  # noqa: S603  our own interpreter
            [python, "-c", _ASK], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["it ended without a word"]
        return Finding("torch", "failure", f"torch cannot be imported ({lines[-1]})", again)
    except subprocess.TimeoutExpired:
        return Finding("torch", "failure", f"torch did not start within {_SECONDS} s", again)
    return msgspec.json.decode(asked.stdout.splitlines()[-1], type=Told)


def torch(told: Told, reason: Reason | None) -> Finding:
    """`reason`: why the CPU does the work, if it does."""
    name = f"torch {told.torch}"
    if reason is None:
        return Finding("torch", "ok", f"{name} on {', '.join(told.devices)}")
    if reason.fix:
        return Finding("torch", "warning", reason.message, f"{reason.fix} (or go on with the CPU)")
    return Finding("torch", "ok", f"{name}; {reason.message}")


def bitsandbytes(told: Told) -> Finding:
    """Whether weights can be loaded in 4 and 8 bits on the device that does the work."""
    device = "the GPU" if told.devices else "the CPU"
    if told.problem:
        detail = f"weights cannot be loaded in 4 or 8 bits on {device} ({told.problem})"
        return Finding("bitsandbytes", "warning", detail, 'pip install --force-reinstall "bitsandbytes>=0.50"')
    return Finding("bitsandbytes", "ok", f"bitsandbytes {told.bitsandbytes} works on {device}: 4-bit and 8-bit weights")
