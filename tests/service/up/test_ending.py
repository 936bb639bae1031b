import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from service.up.ending import Ending, ending_by_signals

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def ordinary_handlers() -> Iterator[None]:
    """As in a process that nobody has changed: the tests themselves may run under nohup."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    for number in NUMBERS:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_asked_once_ends_and_asked_twice_hurries() -> None:
    ending = Ending()
    assert (ending.asked, ending.hurry()) == (False, False)
    ending.ask()
    assert (ending.asked, ending.hurry()) == (True, False)
    ending.ask()
    assert (ending.asked, ending.hurry()) == (True, True)


def test_waiting_takes_its_time_unless_already_asked() -> None:
    ending = Ending()
    began = time.monotonic()
    assert not ending.wait(0.05)
    assert time.monotonic() - began >= 0.05
    ending.ask()
    assert ending.wait(60.0)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_asks_and_interrupts_nothing(number: signal.Signals) -> None:
    with ending_by_signals() as ending:
        signal.raise_signal(number)
        assert ending.asked
        assert not ending.hurry()
        signal.raise_signal(number)
        assert ending.hurry()
    assert signal.getsignal(number) == signal.SIG_DFL


def test_handlers_are_put_back_also_after_an_error() -> None:
    with suppress(KeyError), ending_by_signals():
        assert all(signal.getsignal(number) != signal.SIG_DFL for number in NUMBERS)
        raise KeyError
    assert all(signal.getsignal(number) == signal.SIG_DFL for number in NUMBERS)


def test_under_nohup_hanging_up_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with ending_by_signals() as ending:
        signal.raise_signal(signal.SIGHUP)
        assert not ending.asked
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_outside_the_main_thread_no_signal_is_heard() -> None:
    seen = []

    def run() -> None:
        with ending_by_signals() as ending:
            seen.append((ending.asked, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(False, signal.SIG_DFL)]
