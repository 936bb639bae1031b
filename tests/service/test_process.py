"""What every process does alike, in processes of their own: signals are theirs alone."""

import signal
import subprocess
import threading

import pytest

from service.health import Health
from service.process import wait_for
from tests.service.processes import python

PATIENCE_S = 60.0


def ended(source: str) -> tuple[int, str]:
    """Exit status and output of a program that has an event `stop`."""
    program = python("import os, signal, time\nfrom service.process import *\nstop = stop_on_signals()\n" + source)
    try:
        output, _ = program.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        program.kill()
        program.communicate()
        raise
    return program.returncode, output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_the_event(number: int) -> None:
    assert ended(f"os.kill(os.getpid(), {number:d}); stop.wait(); print('stopped')") == (0, "stopped\n")


def test_a_signal_that_comes_while_the_event_is_locked() -> None:
    """`Event.wait` holds that lock for a moment, and a handler that set the event itself would wait for it for ever."""
    source = "with stop._cond: os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.1)\nstop.wait(); print('stopped')"
    assert ended(source) == (0, "stopped\n")


def test_the_second_signal_ends_the_process_at_once() -> None:
    source = "for _ in range(2): os.kill(os.getpid(), signal.SIGTERM)\nprint('never')"
    assert ended(source) == (128 + signal.SIGTERM, "")


def test_one_signal_ends_a_process_that_is_stopping_already() -> None:
    assert ended("stop.set(); os.kill(os.getpid(), signal.SIGINT); print('never')") == (128 + signal.SIGINT, "")


def test_who_waits_for_a_neighbour_says_so_until_there_is_an_answer() -> None:
    health, said = Health("trainer"), list[object]()

    def redis_check() -> object:
        checks = health.report()[1]["checks"]
        assert isinstance(checks, dict)
        return checks.get("redis")

    def ask() -> str:
        said.append(redis_check())
        if len(said) == 1:
            raise OSError("no route")
        return "here"

    assert wait_for("redis", ask, OSError, health, threading.Event()) == "here"
    assert said[1] == "not usable yet: no route"
    assert redis_check() == "ok"


def test_who_is_stopped_waits_for_nobody() -> None:
    stop = threading.Event()
    stop.set()
    assert wait_for("redis", lambda: "here", OSError, Health("trainer"), stop) is None
