"""For tests that end processes: whether they have ended."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether the condition comes true in time. seconds: on an idle machine."""
    deadline = time.monotonic() + PATIENCE * seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def is_running(pid: int) -> bool:
    """False also for a process that has ended and whose parent has not asked for its status."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (OSError, IndexError):
        return not Path("/proc/self").exists()


def all_gone(pids: Iterable[int], seconds: float = 10.0) -> bool:
    numbers = list(pids)
    return until(lambda: not any(is_running(pid) for pid in numbers), seconds)


def group_of(pid: int) -> list[int]:
    """Every process of the process group, by /proc; empty where there is none."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] not in ("Z", "X") and int(fields[2]) == pid:
            members.append(int(stat.parent.name))
    return members


def answers(address: str) -> bool:
    """Whether somebody accepts connections at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def python(source: str, *, temporary: Path | None = None, **environment: str) -> "subprocess.Popen[str]":
    """Python running `source` with the project importable, its output and errors readable as text."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment}
    if temporary is not None:
        variables["TMPDIR"] = str(temporary)
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", source],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=variables,
        start_new_session=True,
    )
