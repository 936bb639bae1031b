"""The trainer's input: a feeder process, which is replaced when it dies or falls silent. Nothing is lost by it."""

import logging
import threading
import time
from collections.abc import Callable

from consumers.feeder_process import Feeder
from consumers.micro_batch import MicroBatch
from consumers.pipe import FeederDied, Received
from consumers.records import Offsets
from service.health import Health
from service.metrics import TrainerMetrics
from service.process import Fatal
from service.training.heartbeat import KILLED_AFTER_S, SAID_AFTER_S, Heartbeat

log = logging.getLogger(__name__)

RESTARTS_IN_A_ROW = 5  # after feeders that died before they had sent a batch


class Feed:
    """Batches and statuses of the present feeder. `close` ends it."""

    def __init__(
        self,
        start_feeder: Callable[[Offsets], Feeder],
        trained_through: Offsets,
        *,
        metrics: TrainerMetrics,
        health: Health,
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """trained_through: where a feeder begins to read. The caller moves it on; each new feeder reads it anew."""
        self._start_feeder, self._trained_through = start_feeder, trained_through
        self._metrics, self._health, self._stop, self._clock = metrics, health, stop, clock
        self._heartbeat = Heartbeat()
        self._silent_before_s = 0.0  # of the feeders before this one, since the last message of any
        self._deaths_in_a_row = 0
        self._feeder = start_feeder(trained_through)

    def receive(self, timeout_s: float) -> Received | None:
        """The next message; None when none comes within `timeout_s`, or the feeder was replaced.

        Raises: Fatal once more than RESTARTS_IN_A_ROW feeders have died in a row.
        """
        began = self._clock()
        try:
            message = self._feeder.receive(timeout_s)
        except FeederDied as error:
            self._deaths_in_a_row += 1
            if self._deaths_in_a_row > RESTARTS_IN_A_ROW:
                raise Fatal(f"the feeder process died {self._deaths_in_a_row} times in a row: {error}") from error
            self._replace(f"it died: {error}")
            return None
        if message is None:
            self._heartbeat.listened(self._clock() - began, timeout_s)
            if self._heartbeat.is_dead:
                self._replace(f"nothing was heard of it for {KILLED_AFTER_S:g} s", patience_s=0.0)
            elif (trouble := self._heartbeat.trouble) is not None:
                self._health.set("feeder", trouble)
            return None
        self._heartbeat.heard()
        self._silent_before_s = 0.0
        self._health.set("feeder")
        if isinstance(message, MicroBatch):
            self._deaths_in_a_row = 0
        return message

    @property
    def silent_s(self) -> float:
        """Seconds of listening without a message; 0 below SAID_AFTER_S, which is nothing unusual."""
        silent = self._silent_before_s + self._heartbeat.silent_s
        return silent if silent >= SAID_AFTER_S else 0.0

    def commit(self, offsets: Offsets) -> None:
        """Has the feeder commit these offsets to Kafka."""
        self._feeder.commit(offsets)

    def close(self) -> None:
        self._feeder.stop()

    def _replace(self, why: str, patience_s: float = 5.0) -> None:
        """patience_s: how long the old feeder has to end by itself."""
        log.error("the feeder is replaced, and the new one goes on from what has been learned: %s", why)
        self._metrics.feeder_restarts.inc()
        self._feeder.stop(patience_s)
        self._stop.wait(0.2 * self._deaths_in_a_row)
        self._feeder = self._start_feeder(self._trained_through)
        self._silent_before_s += self._heartbeat.silent_s
        self._heartbeat = Heartbeat()
