"""A container's limit counts, whichever version of control groups states it."""

import os
from pathlib import Path

import pytest

from service.cores import usable_cores

V2 = "0::{}\n"
V1 = "4:memory:{0}\n3:cpu,cpuacct:{0}\n"


@pytest.mark.parametrize(
    ("group", "files", "cores"),
    [
        ("", {}, 16),  # no such system
        (V2.format("/"), {}, 16),
        (V2.format("/"), {"cpu.max": "max 100000\n"}, 16),
        (V2.format("/"), {"cpu.max": "200000 100000\n"}, 2),
        (V2.format("/"), {"cpu.max": "250000 100000\n"}, 2),
        (V2.format("/"), {"cpu.max": "50000 100000\n"}, 1),
        (V2.format("/"), {"cpu.max": "6400000 100000\n"}, 16),
        (V2.format("/"), {"cpu.max": "nonsense\n"}, 16),
        (V2.format("/a/b"), {"a/cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"}, 4),
        (V2.format("/a/b"), {"a/cpu.max": "400000 100000", "a/b/cpu.max": "300000 100000"}, 3),
        (V2.format("/of/the/host"), {"cpu.max": "300000 100000"}, 3),
        (V2.format("/../a"), {"a/cpu.max": "300000 100000"}, 3),
        (V1.format("/"), {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 16),
        (V1.format("/"), {"cpu,cpuacct/cpu.cfs_quota_us": "300000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 3),
        (V1.format("/x"), {"cpu,cpuacct/cpu.cfs_quota_us": "300000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 3),
        (V1.format("/x"), {"cpu,cpuacct/x/cpu.cfs_quota_us": "500000", "cpu,cpuacct/x/cpu.cfs_period_us": "0"}, 16),
    ],
)
def test_limits(group: str, files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    for name, content in {"proc/self/cgroup": group, **{f"sys/fs/cgroup/{n}": c for n, c in files.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert usable_cores(tmp_path) == cores


def test_cores_that_the_process_may_not_use_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert usable_cores(tmp_path) == 3


def test_here() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
