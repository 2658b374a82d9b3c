"""Hardware, container limits and GPUs, and the reasons for the CPU with their fixes."""

import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest

from millm.hardware import (
    CgroupLimits,
    Driver,
    Gpu,
    Platform,
    cpu_fallback_reason,
    free_memory,
    read_cgroup_limits,
    read_disk,
    read_driver,
    read_hardware,
    total_memory,
    visible_gpus,
)

GB = 2**30


def platform(built_for: str | None, *devices: str) -> Platform:
    return Platform(torch="2.13.0+cpu", built_for=built_for, threads=2, devices=devices)


def nvidia(version: str = "535.104.05", cuda: tuple[int, int] = (12, 2), gpus: int = 1) -> Driver:
    return Driver(version=version, cuda=cuda, gpus=tuple(gpu(number) for number in range(gpus)))


def gpu(number: int) -> Gpu:
    return Gpu(
        number=number, name=f"NVIDIA Model {number}", total=80 * GB, used=GB, free=79 * GB, ours=0, temperature=40,
        id=f"GPU-{number}{number}aa-bb",
    )  # fmt: skip


# -- this machine -------------------------------------------------------------------------------------------------


def test_this_machine(tmp_path: Path) -> None:
    found = read_hardware(tmp_path / "not" / "yet", None)
    assert found.cpu.name
    assert 1 <= found.cpu.threads <= (os.cpu_count() or 1)
    assert 0 < found.memory.ours < found.memory.available < found.memory.total <= psutil.virtual_memory().total
    assert found.home.total == shutil.disk_usage(tmp_path).total
    assert found.reason is None, "nobody has asked torch yet"


def test_the_memory_of_the_cpu_is_what_is_shown() -> None:
    memory = read_hardware(Path("/"), None).memory
    assert total_memory("cpu") == memory.total
    assert free_memory("cpu") == pytest.approx(memory.available, rel=0.2)


def test_a_gpu_that_is_not_there_has_no_memory() -> None:
    assert free_memory("cuda:63") is None
    assert total_memory("cuda:63") is None


def test_a_child_of_ours_counts_as_ours() -> None:
    before = read_hardware(Path("/"), None).memory.ours
    with psutil.Popen(["python3", "-c", "x = bytearray(200 * 2**20); input()"], stdin=-1) as child:
        try:
            while child.memory_info().rss < 200 * 2**20:
                assert child.poll() is None
            assert read_hardware(Path("/"), None).memory.ours > before + 150 * 2**20
        finally:
            child.kill()


def test_nothing_says_where_anything_is(tmp_path: Path) -> None:
    assert str(tmp_path) not in repr(read_hardware(tmp_path, platform(None)))


def test_the_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert read_disk(tmp_path / "a" / "b").total == shutil.disk_usage(tmp_path).total
    assert not (tmp_path / "a").exists()


# -- containers ---------------------------------------------------------------------------------------------------


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_a_container_of_version_2(tmp_path: Path) -> None:
    write(tmp_path, own="0::/")
    write(tmp_path / "fs", memory__max=str(4 * GB), memory__current=str(3 * GB), cpu__max="150000 100000")
    write(tmp_path / "fs", memory__stat=f"anon 5\ninactive_file {GB}")
    assert read_cgroup_limits(tmp_path / "fs", tmp_path / "own") == CgroupLimits(
        memory=4 * GB, memory_left=2 * GB, cpus=1.5
    )


def test_a_group_inside_others_has_the_tightest_limit(tmp_path: Path) -> None:
    write(tmp_path, own="0::/user/app")
    write(tmp_path / "fs" / "user", memory__max=str(2 * GB), memory__current=str(GB))
    write(tmp_path / "fs" / "user" / "app", memory__max="max", memory__current="5", cpu__max="max 100000")
    assert read_cgroup_limits(tmp_path / "fs", tmp_path / "own") == CgroupLimits(memory=2 * GB, memory_left=GB)


def test_a_container_of_version_1(tmp_path: Path) -> None:
    write(tmp_path, own="4:memory:/docker/x\n2:cpu,cpuacct:/docker/x\n1:name=systemd:/")
    write(tmp_path / "fs" / "memory", memory__limit_in_bytes=str(GB), memory__usage_in_bytes=str(2 * GB))
    write(tmp_path / "fs" / "cpu,cpuacct" / "docker" / "x", cpu__cfs_quota_us="200000", cpu__cfs_period_us="100000")
    assert read_cgroup_limits(tmp_path / "fs", tmp_path / "own") == CgroupLimits(memory=GB, memory_left=0, cpus=2)


def test_no_container(tmp_path: Path) -> None:
    write(tmp_path, own="1:memory:/\n0::/")
    write(tmp_path / "fs" / "memory", memory__limit_in_bytes="9223372036854771712", memory__usage_in_bytes="7")
    write(tmp_path / "fs" / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert (
        read_cgroup_limits(tmp_path / "fs", tmp_path / "own")
        == read_cgroup_limits(tmp_path, tmp_path / "none")
        == CgroupLimits()
    )


# -- GPUs ---------------------------------------------------------------------------------------------------------


class TwoGpus(SimpleNamespace):
    """An NVML with two GPUs: this process uses the first; the second reports no temperature and no processes."""

    NVMLError, NVML_TEMPERATURE_GPU = pynvml.NVMLError, pynvml.NVML_TEMPERATURE_GPU
    is_open = False

    def nvmlInit(self) -> None:
        self.is_open = True

    def nvmlShutdown(self) -> None:
        self.is_open = False

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return 12020

    def nvmlSystemGetDriverVersion(self) -> str:
        return "535.104.05"

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:
        return number

    def nvmlDeviceGetName(self, handle: int) -> str:
        return f"NVIDIA Model {handle}"

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}{handle}aa-bb"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=80 * GB, used=7 * GB, free=73 * GB)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        if handle == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [SimpleNamespace(pid=os.getpid(), usedGpuMemory=5 * GB), SimpleNamespace(pid=1, usedGpuMemory=2 * GB)]

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        if handle == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return 41


def test_what_the_driver_tells() -> None:
    nvml = TwoGpus()
    found = read_driver(nvml)
    assert found is not None
    assert not nvml.is_open
    assert (found.version, found.cuda, len(found.gpus)) == ("535.104.05", (12, 2), 2)
    first, second = found.gpus
    assert (first.number, first.name, first.total, first.free) == (0, "NVIDIA Model 0", 80 * GB, 73 * GB)
    assert (first.ours, first.temperature) == (5 * GB, 41)
    assert (second.ours, second.temperature) == (None, None)


@pytest.fixture
def shown() -> tuple[Gpu, ...]:
    return nvidia(gpus=3).gpus


@pytest.mark.parametrize(
    ("named", "numbers"),
    [(None, [0, 1, 2]), ("2,0", [2, 0]), ("GPU-11aa", [1]), ("1,7,0", [1]), ("", []), ("-1", []), (" 2 ", [2])],
)
def test_cuda_visible_devices(shown: tuple[Gpu, ...], named: str | None, numbers: list[int]) -> None:
    assert [gpu.number for gpu in visible_gpus(shown, named)] == numbers


# -- why the CPU --------------------------------------------------------------------------------------------------


def reason(platform: Platform, found: Driver | None, shown: str | None = None, has_file: bool = False) -> str:
    why = cpu_fallback_reason(platform, found, shown, has_file)
    assert why is not None
    return f"{why.message} → {why.fix}"


def test_a_gpu_that_works_needs_no_reason() -> None:
    assert cpu_fallback_reason(platform("CUDA 13.0", "NVIDIA Model 0"), nvidia(), None, True) is None


def test_no_gpu() -> None:
    assert reason(platform(None), None) == "no GPU was found: the CPU does the work → "


@pytest.mark.parametrize(
    ("cuda", "wheels"), [((12, 2), "cu126"), ((12, 9), "cu126"), ((13, 0), "cu130"), ((14, 1), "cu130")]
)
def test_torch_for_the_cpu_beside_a_gpu(cuda: tuple[int, int], wheels: str) -> None:
    text = reason(platform(None), nvidia("535.104.05", cuda))
    assert text.startswith(
        "a GPU is present (NVIDIA Model 0) but this torch cannot use it: driver 535.104.05"
        f" (CUDA {cuda[0]}.{cuda[1]}), torch 2.13.0+cpu is built for the CPU only → pip install"
    )
    assert re.search(rf"torch==2\.13\.0 --index-url \S+/{wheels}$", text)


def test_a_driver_too_old_for_this_torch() -> None:
    text = reason(platform("CUDA 13.0"), nvidia("535.104.05", (12, 2)))
    assert "driver 535.104.05 (CUDA 12.2), torch 2.13.0+cpu is built for CUDA 13.0 → pip install" in text
    assert text.endswith("/cu126")


def test_a_driver_too_old_for_any_torch() -> None:
    assert "update the NVIDIA driver to 525 or later" in reason(platform("CUDA 13.0"), nvidia("470.1", (11, 4)))


def test_a_driver_and_a_torch_that_fit_and_yet() -> None:
    text = reason(platform("CUDA 12.8"), nvidia("535.104.05", (12, 2)))
    assert "restart the machine" in text
    assert "pip install" not in text


def test_a_gpu_that_is_hidden() -> None:
    assert reason(platform("CUDA 12.8"), nvidia(), shown="") == (
        "CUDA_VISIBLE_DEVICES='' hides the NVIDIA Model 0 → unset CUDA_VISIBLE_DEVICES"
    )


def test_a_gpu_without_a_driver() -> None:
    text = reason(platform(None), None, has_file=True)
    assert "a GPU is present but this torch cannot use it" in text
    assert "install the GPU's driver" in text
