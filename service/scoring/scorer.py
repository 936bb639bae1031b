"""The scoring worker's loop: take events into histories, store them, write lists.

Histories come first, so they are never behind. Lists have a budget of compute, and one list reflects all events of a
user that came in one window. Offsets are committed after their histories are stored, and a history holds the offsets
that it has taken in; so a scorer that takes partitions over continues each history exactly.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence

from consumers.lag import Lag
from consumers.records import Record, TopicPartition
from consumers.source import EventSource, SourceStatus
from model_store.errors import StoreUnavailable
from service.health import OK, Health
from service.metrics import ScorerMetrics
from service.model.config import HistoryConfig
from service.process import Fatal
from service.scoring.active_users import ActiveUsers
from service.scoring.blocked_items import BlockedItems
from service.scoring.freshness import Freshness
from service.scoring.histories import Histories
from service.scoring.list_store import ListStore
from service.scoring.list_writer import ListWriter
from service.scoring.live_rule import LiveRule
from service.scoring.pace import Pace
from service.scoring.read_offsets import ReadOffsets
from service.scoring.related import RelatedLists
from service.scoring.reloader import Reloader
from service.scoring.sweeper import Sweeper
from service.settings import ScorerSettings

log = logging.getLogger(__name__)

POLL_RECORDS = 2000
IDLE_POLL_S = 0.02
COMMIT_EVERY_S = 0.5
HOUSEKEEPING_EVERY_S = 0.5
RETRY_S = 0.2


class Scorer:
    """Reads events and writes lists until `stop` is set."""

    def __init__(
        self,
        source: EventSource,
        blocked: BlockedItems,
        reloader: Reloader,
        lists: ListStore,
        sweeper: Sweeper,
        settings: ScorerSettings,
        *,
        metrics: ScorerMetrics,
        health: Health,
        stop: threading.Event,
        live_history: HistoryConfig | None,
        other_kafka: Callable[[], str | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`live_history`: the section `history` of the live version, which serves until that is loaded; None where
        there is no version. `other_kafka` returns why the offsets are void, once Kafka's cluster or topics are other
        ones; else None. `clock`: seconds."""
        self._source, self._blocked, self._reloader, self._sweeper = source, blocked, reloader, sweeper
        self._settings, self._metrics, self._health, self._stop = settings, metrics, health, stop
        self._other_kafka, self._clock = other_kafka, clock
        self._offsets = ReadOffsets()
        freshness = Freshness(
            lambda stage, seconds: metrics.freshness.labels(stage).observe(seconds),
            lambda stage, events: metrics.events_unmeasured.labels(stage).inc(events),
            lambda stage, time: metrics.event_times_implausible.labels(stage, time).inc(),
        )
        self._active = ActiveUsers(settings.max_active_users, freshness)
        rule = LiveRule(
            settings,
            health,
            lambda: live_history if reloader.served is None else reloader.served.recommender.config.history,
        )
        pace = Pace()
        self._histories = Histories(lists, self._active, rule, settings, metrics, pace)
        related = RelatedLists(reloader.moved, blocked, lists, sweeper, settings.top_k, metrics, clock=clock)
        self._writer = ListWriter(
            self._active,
            reloader,
            blocked,
            lists,
            settings,
            metrics=metrics,
            health=health,
            related=related,
            pace=pace,
            clock=clock,
        )
        self._lag = Lag(clock)
        self._lag_shown: set[TopicPartition] = set()
        self._committed_at = self._housekept_at = -math.inf

    def run(self) -> None:
        """Raises Fatal."""
        self.start()
        try:
            while not self._stop.is_set():
                self.turn()
        finally:
            self.finish()

    def start(self) -> None:
        """Reads all of `items`, which says what is deleted or not available, and then subscribes to `events`."""
        while not self._stop.is_set() and not self._blocked.caught_up:
            self._blocked.poll(0.1)
            self._tell_kafka(self._blocked.status)
        self._source.subscribe([self._settings.events_topic], self._on_assigned, self._on_revoked, self._on_lost)
        self._health.started()

    def turn(self) -> None:
        """One turn of the loop: a window of events, then lists within the budget. Raises Fatal."""
        self._check_kafka()
        records = self._read_window()
        if records:
            self._until_stored(lambda: self._take(records))
        self._until_stored(self._histories.save)
        self._sweeper.sweep_soon(self._blocked.poll())
        try:
            self._writer.write()
            self._keep_house()
        except StoreUnavailable as error:
            self._pause(error)

    def finish(self) -> None:
        """Stores and commits what was read, and closes the sources."""
        self._store_and_commit()
        self._source.close()
        self._blocked.close()

    # -- events --------------------------------------------------------------------------------------------------------

    def _check_kafka(self) -> None:
        """Raises: Fatal once Kafka's cluster or topics are other ones. The next scorer then reads the new log from its
        beginning, because this one may have read of it at offsets of the old log."""
        if (why := self._other_kafka()) is not None:
            self._offsets.begin_anew()
            raise Fatal(f"Kafka was changed under this scorer: {why}; start it again, it waits until the trainer "
                        "has begun anew (`tidemill trainer --fresh`)")  # fmt: skip

    def _read_window(self) -> list[Record]:
        """The events of one window; without any, a short wait, unless lists are waiting to be written."""
        records = self._source.poll(POLL_RECORDS, 0.001 if self._writer.has_work else IDLE_POLL_S)
        end = self._clock() + self._settings.window_ms / 1000
        # where the last turn was spent on lists, the events that came meanwhile are a window already
        gather = not self._writer.lists_wait
        while records and gather and len(records) < POLL_RECORDS and (left := end - self._clock()) > 0:
            time.sleep(min(left, 0.002))
            records += self._source.poll(POLL_RECORDS - len(records), 0.0)
        for topic, partition, start, gone in self._source.take_expired():
            self._metrics.events_expired.labels(topic, str(partition)).inc(gone - start)
            log.error(
                "%s[%d]: the broker had deleted records %d to %d before they were read", topic, partition, start, gone
            )
        return records

    def _take(self, records: Sequence[Record]) -> None:
        """Takes records into histories. Raises: StoreUnavailable, and may then be called again with the same
        records."""
        self._histories.take(records)
        self._offsets.read(records)

    def _until_stored(self, step: Callable[[], None]) -> None:
        """Repeats `step` while Redis is away. Nothing more is read meanwhile, so nothing is lost."""
        while True:
            try:
                step()
                return
            except StoreUnavailable as error:
                if self._stop.is_set():
                    return
                self._pause(error)

    def _pause(self, error: StoreUnavailable) -> None:
        self._health.set("lists", str(error))
        self._stop.wait(RETRY_S)

    # -- partitions ----------------------------------------------------------------------------------------------------

    def _on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self._metrics.rebalances.inc()
        self._offsets.assign(partitions)
        self._sweeper.take_over(partitions, self._blocked.ids)
        log.info("reading %s", ", ".join(f"{p.topic}[{p.partition}]" for p in self._offsets.assigned))
        try:
            self._histories.take_over(partitions)
        except StoreUnavailable as error:
            log.warning("who acted lately is not known, their lists wait for their next event: %s", error)

    def _on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self._store_and_commit()
        self._on_lost(partitions)

    def _on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._offsets.lose(partitions)
        self._histories.lose(partitions)
        self._sweeper.lose(partitions)

    def _store_and_commit(self) -> None:
        """Leaves everything to the next scorer. The last seconds are not committed: the next scorer reads them again
        and skips what is stored, since Redis may still lose it and this scorer will not have it in memory."""
        try:
            self._histories.save()
            self._commit(wait=True)
        except StoreUnavailable as error:
            log.warning("what is not stored will be read again by whoever goes on: %s", error)

    def _commit(self, *, wait: bool = False) -> None:
        """Commits what was stored long enough ago. To be called when all histories are stored."""
        now = self._clock()
        self._offsets.stored(now)
        if offsets := self._offsets.committable(now):
            self._source.commit(offsets, wait=wait)

    # -- housekeeping --------------------------------------------------------------------------------------------------

    def _keep_house(self) -> None:
        """Commits, loads newcomers, and does what is due only now and then. Raises: StoreUnavailable."""
        now = self._clock()
        if now - self._committed_at >= COMMIT_EVERY_S and self._histories.saved:
            self._committed_at = now
            self._commit()
        self._histories.load_newcomers()
        if now - self._housekept_at >= HOUSEKEEPING_EVERY_S:
            self._housekept_at = now
            self._histories.restore()
            self._health.set("lists", OK)  # Redis has answered
            self._histories.forget_quiet()
            self._tell()

    def _tell(self) -> None:
        """Metrics and health: how far behind Kafka, how many users, how old the model."""
        metrics = self._metrics
        self._tell_kafka(self._source.status, self._blocked.status)
        self._tell_lag()
        metrics.active_users.set(len(self._active))
        metrics.lists_due.set(self._active.due)
        if (served := self._reloader.served) is not None:
            metrics.model_age.set(max(0.0, time.time() - served.manifest.created))

    def _tell_lag(self) -> None:
        """Shows the lag of the partitions that are read here, and removes that of others."""
        positions = self._source.positions()
        self._lag.ends(self._source.end_offsets())
        self._lag.keep(self._offsets.assigned)
        behind, gauge = self._lag.of_partitions(positions), self._metrics.lag_events
        for topic, partition in self._lag_shown - behind.keys():
            gauge.remove(topic, str(partition))
        for (topic, partition), records in behind.items():
            gauge.labels(topic, str(partition)).set(records)
        self._lag_shown = set(behind)
        self._metrics.lag_seconds.set(self._lag.seconds(positions))

    def _tell_kafka(self, *statuses: SourceStatus) -> None:
        """Shows what is wrong with any of the sources."""
        wrong = [status.message for status in statuses if not status.healthy]
        self._health.set("kafka", "; ".join(wrong) or OK)
        notes = [status.message for status in statuses if status.healthy and status.message]
        assigned = ", ".join(f"{p.topic}[{p.partition}]" for p in self._offsets.assigned)
        self._health.fact("reading", "; ".join(notes) or assigned)
