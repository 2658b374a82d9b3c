"""What a container may use of the machine it is on: Linux' control groups, of both versions."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 1 << 60
"""Version 1 writes a number of about that size for no limit."""


@dataclass(frozen=True)
class CgroupLimits:
    """None: as much as the machine has."""

    memory: int | None = None
    """Bytes."""
    memory_left: int | None = None
    """Of these, what is not in use; files in the page cache do not count as use."""
    cpus: float | None = None
    """How many cores' time."""


def read_cgroup_limits(
    cgroup_root: Path = Path("/sys/fs/cgroup"), process_cgroups: Path = Path("/proc/self/cgroup")
) -> CgroupLimits:
    """The tightest of the groups that this process is in."""
    if not process_cgroups.is_file():
        return CgroupLimits()
    memory = [
        found for folder in _cgroup_folders(cgroup_root, process_cgroups, "memory") if (found := _cgroup_memory(folder))
    ]
    cpus = [quota for folder in _cgroup_folders(cgroup_root, process_cgroups, "cpu") if (quota := _cgroup_cpus(folder))]
    return CgroupLimits(
        memory=min((limit for limit, _ in memory), default=None),
        memory_left=min((max(limit - used, 0) for limit, used in memory), default=None),
        cpus=min(cpus, default=None),
    )


def _cgroup_folders(cgroup_root: Path, process_cgroups: Path, controller: str) -> Iterator[Path]:
    """The process's own group and those around it; in a container often only the outermost can be seen."""
    for line in process_cgroups.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = cgroup_root / controllers if controllers else cgroup_root
        group = root / path.lstrip("/")
        while group != root and root in group.parents:
            yield group
            group = group.parent
        yield root


def _cgroup_memory(folder: Path) -> tuple[int, int] | None:
    """(bytes allowed, bytes in use); None without a limit."""
    limit = _read_number(folder / "memory.max") or _read_number(folder / "memory.limit_in_bytes")
    if limit is None or limit >= _UNLIMITED:
        return None
    used = _read_number(folder / "memory.current") or _read_number(folder / "memory.usage_in_bytes") or 0
    return limit, used - _reclaimable_bytes(folder / "memory.stat")


def _reclaimable_bytes(stat: Path) -> int:
    pairs = dict(line.split() for line in _read_text(stat).splitlines())
    return int(pairs.get("total_inactive_file", pairs.get("inactive_file", 0)))


def _cgroup_cpus(folder: Path) -> float | None:
    quota, period = [*_read_text(folder / "cpu.max").split(), "", ""][:2]
    if not quota:
        quota, period = _read_text(folder / "cpu.cfs_quota_us"), _read_text(folder / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(quota) else None


def _read_number(path: Path) -> int | None:
    text = _read_text(path)
    return int(text) if text.isdecimal() else None


def _read_text(path: Path) -> str:
    """Empty where there is no such file, or it may not be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
