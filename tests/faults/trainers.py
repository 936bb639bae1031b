"""Trainers that may be killed many times over: forked from a process that has imported everything.

A trainer takes 3 s to import torch and the rest; forked, it is at work in tenths of a second. What is forked is
`tidemill trainer` itself, in a session of its own, and its feeder is started by it as ever.
"""

import multiprocessing
import os
import traceback
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["service.training.main", "tests.faults.kill_points", "tests.faults.reference"])


def start_trainer(environment: Mapping[str, str], log: Path) -> ForkServerProcess:
    """`tidemill trainer` in a process of its own, ended with this one at the latest."""
    process = _context.Process(target=_run, args=(dict(environment), str(log)), daemon=True)
    process.start()
    return process


def _run(environment: dict[str, str], log: str) -> None:
    os.setsid()
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    from service.cli import main
    from tests.faults.kill_points import arm

    try:
        arm()
        status = main(["trainer"])
    except BaseException:
        traceback.print_exc()
        status = 70
    os._exit(status)
