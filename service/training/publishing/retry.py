"""Tries again what the store did not take, until it does or the publisher is to stop."""

import threading
from collections.abc import Callable
from typing import TypeVar

from model_store.errors import Damaged, ModelStoreError, StoreUnavailable
from service.health import OK, Health
from service.metrics import TrainerMetrics

T = TypeVar("T")

RETRY_S = 0.25  # between two attempts


class Retry:
    """Counts each failure, and shows it under `redis` in /health until the store answers again."""

    def __init__(self, stopping: threading.Event, *, metrics: TrainerMetrics, health: Health) -> None:
        self._stopping, self._metrics, self._health = stopping, metrics, health

    def until_done(self, attempt: Callable[[], T]) -> T:
        """Calls `attempt` until it returns, and returns its result.

        Raises: what `attempt` raises. StoreUnavailable and Damaged (of a pointer that is not a number, which an
        operator can mend) are raised only once the publisher is to stop; before that they lead to another attempt.
        """
        while True:
            try:
                result = attempt()
            except (StoreUnavailable, Damaged) as error:
                self._health.set("redis", str(error))
                self.pause(error)
            else:
                self._health.set("redis", OK)
                return result

    def pause(self, error: ModelStoreError) -> None:
        """Counts a failure, and waits before the next attempt. Raises it once the publisher is to stop."""
        self.failed(error)
        if self._stopping.wait(RETRY_S):
            raise error

    def failed(self, error: ModelStoreError) -> None:
        """Counts a failure after which something else is tried at once. Raises it once the publisher is to stop."""
        self._metrics.publish_failures.inc()
        if self._stopping.is_set():
            raise error
