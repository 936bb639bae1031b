"""Being asked to end: signals set a flag and interrupt nothing, so no moment of starting or ending is torn apart."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Ending:
    """Whether we were asked to end, and whether somebody is in a hurry.

    A plain number, not a `threading.Event`: a signal may arrive while the thread that it interrupts holds the event's
    lock, and setting the event would then wait for ever.
    """

    def __init__(self) -> None:
        self._times = 0

    def ask(self) -> None:
        self._times += 1

    @property
    def asked(self) -> bool:
        return self._times > 0

    def hurry(self) -> bool:
        """True once asked again: do not wait for anyone."""
        return self._times > 1

    def wait(self, seconds: float) -> bool:
        """Let so many seconds pass, unless asked before they begin; whether we have been asked."""
        if not self.asked:
            time.sleep(seconds)
        return self.asked


@contextmanager
def ending_by_signals() -> Iterator[Ending]:
    """Ctrl-C, SIGTERM and the terminal's hanging up ask for the end; what they did before is put back afterwards.

    Outside the main thread no signal is heard: Python allows it nowhere else.
    """
    ending = Ending()

    def on_signal(number: int, frame: FrameType | None) -> None:
        ending.ask()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # it is under nohup
        numbers.append(signal.SIGHUP)
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
