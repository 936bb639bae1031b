import signal
import sys
import time
from pathlib import Path

import pytest

from service import leash
from service.leash import Child, describe, end_together
from tests.service.processes import all_gone, group_of, is_running, python, until

SLEEPER = [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(600)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]
WITH_CHILD = [
    sys.executable,
    "-c",
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "print('up', flush=True); time.sleep(600)",
]


def started(command: list[str]) -> Child:
    child = Child(command)
    assert until(lambda: child.tail() == ["up"])
    return child


def test_output_goes_to_the_log_and_the_status_comes_back() -> None:
    child = Child(
        [sys.executable, "-c", "import sys; print('eins'); print('zwei\\x1b[31m', file=sys.stderr); sys.exit(3)"]
    )
    assert until(lambda: child.poll() is not None)
    assert child.poll() == 3
    assert sorted(child.tail()) == ["eins", "zwei [31m"]
    assert child.tail(0) == [] or len(child.tail(1)) == 1
    child.close()


def test_sigterm_ends_a_child_within_its_grace() -> None:
    child = started(SLEEPER)
    began = time.monotonic()
    assert child.stop(10.0) == -signal.SIGTERM
    assert time.monotonic() - began < 5
    assert child.stop() == -signal.SIGTERM  # again does no harm
    child.close()


def test_a_deaf_child_is_killed() -> None:
    child = started(DEAF)
    assert child.stop(0.2) == -signal.SIGKILL
    child.close()


def test_a_stopped_child_still_sees_sigterm() -> None:
    child = started(SLEEPER)
    child.signal(signal.SIGSTOP)
    assert child.stop(10.0) == -signal.SIGTERM
    child.close()


def test_what_the_child_started_ends_with_it() -> None:
    child = started(WITH_CHILD)
    group = group_of(child.pid)
    assert len(group) == 3  # the command, its child, the watcher
    child.close()
    assert all_gone(group)


def test_what_a_dead_child_left_behind_is_ended() -> None:
    child = started(WITH_CHILD)
    group = group_of(child.pid)
    child.signal(signal.SIGKILL)
    assert until(lambda: child.poll() is not None)
    child.close()
    assert all_gone(group)


@pytest.mark.parametrize("command", [SLEEPER, DEAF, WITH_CHILD], ids=["plain", "deaf", "with a child"])
def test_the_whole_group_ends_when_we_are_killed(command: list[str]) -> None:
    owner = python(
        "import time\nfrom service.leash import Child\n"
        f"child = Child({command!r})\nwhile child.tail() != ['up']: time.sleep(0.01)\n"
        "print(child.pid, flush=True)\ntime.sleep(600)"
    )
    with owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        group = group_of(pid)
        assert is_running(pid)
        owner.kill()
        assert all_gone(group)


def test_a_child_outlives_the_thread_that_started_it() -> None:
    owner = python(
        "import threading, time\nfrom service.leash import Child\nchildren = []\n"
        f"thread = threading.Thread(target=lambda: children.append(Child({SLEEPER!r})))\n"
        "thread.start(); thread.join()\ntime.sleep(0.5)\nprint(children[0].poll(), flush=True)\nchildren[0].close()"
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline().strip() == "None"


def test_a_command_that_is_not_there() -> None:
    child = Child(["/nowhere/at/all"])
    assert until(lambda: child.poll() is not None)
    assert child.poll() == 127
    assert child.tail() == ["cannot execute /nowhere/at/all: No such file or directory"]
    child.close()


def test_ending_several_shares_one_grace() -> None:
    children = [started(DEAF), started(DEAF), started(SLEEPER)]
    began = time.monotonic()
    end_together(children, 0.5)
    assert 0.4 < time.monotonic() - began < 3
    assert [child.stop() for child in children] == [-signal.SIGKILL, -signal.SIGKILL, -signal.SIGTERM]
    for child in children:
        child.close()


def test_in_a_hurry_nobody_is_waited_for() -> None:
    child = started(DEAF)
    began = time.monotonic()
    end_together([child], 60.0, lambda: True)
    assert time.monotonic() - began < 5
    child.close()


def test_a_log_that_is_kept(tmp_path: Path) -> None:
    for word in ("first", "second"):
        child = Child([sys.executable, "-c", f"print('{word}')"], log_path=tmp_path / "a.log")
        assert until(lambda child=child: child.poll() is not None)  # type: ignore[misc]
        child.close()
    assert (tmp_path / "a.log").read_text() == "first\nsecond\n"


def test_a_log_without_a_name_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leash, "LOG_LIMIT_BYTES", 1000)
    child = Child(
        [
            sys.executable,
            "-c",
            "import time; print('x' * 5000, flush=True); time.sleep(0.6); print('after', flush=True); time.sleep(600)",
        ]
    )
    assert until(lambda: bool(child.tail()))
    child.trim_log()
    assert child.tail() == []
    assert until(lambda: child.tail() == ["after"])
    child.close()


def test_statuses_in_words() -> None:
    assert describe(1) == "exit status 1"
    assert describe(-9) == "killed by SIGKILL"
    assert describe(-250) == "killed by signal 250"
