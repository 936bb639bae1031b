"""Waiting until something is due, in a way that can be stopped, and tested without waiting."""

import time
from collections.abc import Callable
from threading import Event

_SHORTEST_SLEEP = 0.002  # seconds; shorter ones cost more than they are worth at thousands of events a second
_MOST_LATE = 1.0  # seconds; beyond it the schedule moves, rather than a flood making up for a pause


class Pace:
    """Seconds since the first wait, kept by `clock`; `sleep(seconds)` may return early."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        stop: Event | None = None,
    ) -> None:
        self._clock = clock
        self._stop = stop if stop is not None else Event()
        self._sleep = sleep if sleep is not None else self._stop.wait
        self._begin: float | None = None

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def until(self, due: float) -> bool:
        """Wait until `due`; False when stopped.

        A little late goes on at once, so that a rate holds in the mean; very late moves the schedule.
        """
        if self._begin is None:
            self._begin = self._clock() - due
        while not self.stopped:
            ahead = self._begin + due - self._clock()
            if ahead < -_MOST_LATE:
                self._begin -= ahead
            if ahead < _SHORTEST_SLEEP:
                return True
            self._sleep(min(ahead, 0.5))
        return False
