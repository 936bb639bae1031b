"""What the store does not take is tried again until it does, or until the publisher is to stop."""

import threading
from collections.abc import Callable
from typing import TypeVar

from model_store.errors import Damaged, ModelStoreError, StoreUnavailable
from service.health import OK, Health
from service.metrics import TrainerMetrics

T = TypeVar("T")

RETRY_S = 0.25


class Retry:
    """Each failure is counted, and shown under `redis` in /health until the store answers again."""

    def __init__(self, stopping: threading.Event, *, metrics: TrainerMetrics, health: Health) -> None:
        self._stopping, self._metrics, self._health = stopping, metrics, health

    def until_done(self, attempt: Callable[[], T]) -> T:
        """What `attempt` returns, which may be called many times. Raises what it raises but StoreUnavailable and
        Damaged (a pointer that somebody wrote nonsense into is waited for as well), and those once stopping."""
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
        """Before another attempt after this error. Raises it once the publisher is to stop."""
        self.failed(error)
        if self._stopping.wait(RETRY_S):
            raise error

    def failed(self, error: ModelStoreError) -> None:
        """Counts a failure that something else is tried after at once. Raises it once the publisher is to stop."""
        self._metrics.publish_failures.inc()
        if self._stopping.is_set():
            raise error
