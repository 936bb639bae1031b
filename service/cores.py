"""How many processor cores this process may use: in a container that is less than the machine has."""

import os
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """At least 1. By the processor's cores that the process may run on, and the quota of its control group.

    root: where the system's files are.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(root)
    return max(1, cores if quota is None else min(cores, int(quota)))


def _quota(root: Path) -> float | None:
    """The least of the limits on the groups that the process is in, in cores; None without one."""
    limits = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            for folder in _with_parents(root / "sys/fs/cgroup", path):
                quota, period = [*_words(folder / "cpu.max"), "max", "max"][:2]
                limits.append(_cores(quota, period))
        elif "cpu" in controllers.split(","):
            for folder in _with_parents(root / "sys/fs/cgroup" / controllers, path):
                of_group = [*_words(folder / "cpu.cfs_quota_us")[:1], *_words(folder / "cpu.cfs_period_us")[:1]]
                quota, period = [*of_group, "max", "max"][:2]
                limits.append(_cores(quota, period))
    return min((limit for limit in limits if limit is not None), default=None)


def _with_parents(mount: Path, path: str) -> list[Path]:
    """The folders of a group and of those above it. Inside a container the path may be the host's, and not be there."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [mount.joinpath(*parts[:n]) for n in range(len(parts) + 1)]


def _cores(quota: str, period: str) -> float | None:
    """None where there is no limit: "max", or -1."""
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _words(file: Path) -> list[str]:
    return [word for line in _lines(file) for word in line.split()]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
