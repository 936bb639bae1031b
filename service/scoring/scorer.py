"""The scoring worker's loop: take events into histories, store them, write lists.

Histories always come first, so they are never behind; lists have a budget of compute, and one list answers all events
of a user that came in one window. Offsets are committed after what they stand for is stored, and a history knows by
itself which offsets it has taken in, so a scorer that takes over another's partitions goes on exactly.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from consumers.decode import DecodeRules, decode
from consumers.events import Interaction
from consumers.records import Record, TopicPartition
from consumers.source import EventSource
from model_store.errors import StoreUnavailable
from service.health import OK, Health
from service.metrics import ScorerMetrics
from service.process import Fatal
from service.scoring.active_users import ActiveUser, ActiveUsers, Taken
from service.scoring.catalogue import Catalogue
from service.scoring.list_store import ListStore, Saved, now_ms
from service.scoring.recommendations import list_json, timestamp
from service.scoring.reloader import Reloader, Weights
from service.scoring.sweeper import Sweeper
from service.scoring.top_k import excluded, rank
from service.settings import ScorerSettings

log = logging.getLogger(__name__)

POLL_RECORDS = 2000
IDLE_POLL_S = 0.02
GROUP = 64  # lists made together
COMMIT_EVERY_S = 0.5
COMMIT_AFTER_S = 5.0  # what a failover may lose is younger: Kafka must still have it to read
SAVE_AT_ONCE = 2000  # histories in one round trip: a few megabytes
HOUSEKEEPING_EVERY_S = 0.5
DEFAULT_LIST_EVERY_S = 1.0
RETRY_S = 0.2
LATEST_AGE_S = 0.5  # beyond the refresh interval, before a list of somebody who acted last is rewritten out of turn
BURST_S = 0.25  # budget that may be saved up


class Scorer:
    """Scores until `stop` is set. Everything it works with is passed in."""

    def __init__(
        self,
        source: EventSource,
        catalogue: Catalogue,
        reloader: Reloader,
        lists: ListStore,
        sweeper: Sweeper,
        settings: ScorerSettings,
        *,
        metrics: ScorerMetrics,
        health: Health,
        stop: threading.Event,
        other_kafka: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`other_kafka` says why the offsets mean nothing any more, once they do not."""
        self._other_kafka = other_kafka
        self._source, self._catalogue, self._reloader = source, catalogue, reloader
        self._lists, self._sweeper, self._settings = lists, sweeper, settings
        self._metrics, self._health, self._stop = metrics, health, stop
        self._rules = DecodeRules(
            event_types=settings.event_weights,
            items_topic=settings.items_topic,
            future_tolerance_ms=int(settings.future_tolerance_hours * 3_600_000),
        )
        self._active = ActiveUsers(settings.max_active_users)
        self._unsaved: dict[str, ActiveUser] = {}
        self._next: dict[TopicPartition, int] = {}  # offsets to commit, some time
        self._stored: deque[tuple[float, dict[TopicPartition, int]]] = deque()  # as they were, latest last
        self._assigned: set[TopicPartition] = set()
        self._newcomers: dict[TopicPartition, list[str]] = {}  # recently active users of partitions just taken over
        self._listless: dict[str, ActiveUser] = {}  # nothing could be listed for them: they wait for a change
        self._newest_kafka_ms = 0
        self._weights_version: int | None = None
        self._mask: tuple[int, int, NDArray[np.bool_] | None] | None = None
        self._blocked_changes = 0
        self._groups = 0
        self._lists_wait = False  # the last turn ended before nobody needed a list
        self._budget_s = 0.0
        self._budget_at = time.monotonic()
        self._committed_at = self._housekept_at = self._default_at = 0.0

    def run(self) -> None:
        self._read_catalogue()
        self._source.subscribe([self._settings.events_topic], self._on_assigned, self._on_revoked, self._on_lost)
        self._health.started()
        try:
            while not self._stop.is_set():
                self._check_kafka()
                self.turn()
        finally:
            self._finish()

    def turn(self) -> None:
        """One turn of the loop: a window of events, then lists within the budget."""
        records = self._read_window()
        if records:
            self._until_stored(lambda: self._take(records))
        if self._unsaved:
            self._until_stored(self._save)
        self._follow_weights()
        self._sweeper.sweep_soon(self._read_blocked())
        try:
            self._write_lists()
            self._keep_house()
        except StoreUnavailable as error:
            self._pause(error)
        else:
            if not self._lists_wait:
                self._health.set("lists", OK)

    def _check_kafka(self) -> None:
        """Raises Fatal once what is read is not what it was. Whoever goes on then reads the new log from its beginning:
        what this scorer may have read of it was read at offsets of the old one."""
        if (why := self._other_kafka()) is not None:
            self._next = dict.fromkeys(self._assigned, 0)
            raise Fatal(f"Kafka was changed under this scorer: {why}; start it again, it waits until the trainer "
                        "has begun anew (`tidemill trainer --fresh`)")  # fmt: skip

    def _read_catalogue(self) -> None:
        """All of `items` before the first list: what compaction has kept says what is deleted or not available."""
        while not self._stop.is_set() and not self._catalogue.caught_up:
            self._catalogue.poll(0.1)
            status = self._catalogue.status
            self._health.set("kafka", OK if status.healthy else status.message)
        self._sweeper.sweep_soon(set(self._catalogue.blocked))

    def _read_blocked(self) -> set[str]:
        newly = self._catalogue.poll()
        if self._catalogue.changes != self._blocked_changes:
            self._blocked_changes = self._catalogue.changes
            self._listless_again()
        return newly

    def _read_window(self) -> list[Record]:
        """The events of one window; without any, a short wait, unless lists are waiting to be written."""
        busy = self._active.due > 0 or self._weights_version != self._live_version()
        records = self._source.poll(POLL_RECORDS, 0.001 if busy else IDLE_POLL_S)
        end = time.monotonic() + self._settings.window_ms / 1000
        # after a turn whose time was all spent on lists, what came meanwhile is a window already
        while records and not self._lists_wait and len(records) < POLL_RECORDS and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.002))
            records += self._source.poll(POLL_RECORDS - len(records), 0.0)
        for topic, partition, start, gone in self._source.take_expired():
            self._metrics.events_expired.labels(topic, str(partition)).inc(gone - start)
            log.error(
                "%s[%d]: the broker had deleted records %d to %d before they were read", topic, partition, start, gone
            )
        return records

    def _take(self, records: Sequence[Record]) -> None:
        """Takes records into the histories of their users. May be called again with the same ones."""
        decoded = decode(records, self._rules, now_ms())
        events = [(o, r) for o, r in zip(decoded.outcomes, records, strict=True) if isinstance(o, Interaction)]
        self._load([event.user_id for event, _ in events])
        weights, length, hide = self._settings.event_weights, self._settings.history_length, self._settings.hide_seen
        metrics = self._metrics
        for event, record in events:
            where = TopicPartition(record.topic, record.partition)
            user = self._active.get(event.user_id)
            if user is None or user.history.has_read(where, record.offset):
                continue
            taken = Taken(event, where, record.offset, record.timestamp_ms)
            weight = weights[event.type]
            new = user.history.take(
                event, where, record.offset, record.timestamp_ms, weight=weight, length=length, hide=hide
            )
            user.unsaved.append(taken)
            self._unsaved[event.user_id] = user
            metrics.events_consumed.labels(event.type).inc()
            if new:
                self._active.acted(user, taken)
            else:
                metrics.events_duplicate.inc()
            if record.key is None or record.key != event.user_id.encode():
                metrics.events_misrouted.inc()
        for reject in decoded.rejects:
            metrics.events_rejected.labels(reject.code).inc()
        for record in records:
            self._next[TopicPartition(record.topic, record.partition)] = record.offset + 1
            self._newest_kafka_ms = max(self._newest_kafka_ms, record.timestamp_ms)

    def _load(self, user_ids: Sequence[str]) -> None:
        """Brings users into memory whose history is not there yet."""
        missing = [user for user in dict.fromkeys(user_ids) if user not in self._active]
        if missing:
            for user, (stamp, history) in self._lists.histories(missing).items():
                self._active.add(ActiveUser(user, stamp, history))

    def _save(self) -> None:
        """Stores every history that has changed; one that another scorer has changed is read again and continued."""
        while self._unsaved:
            self._save_some(list(islice(self._unsaved.values(), SAVE_AT_ONCE)))

    def _save_some(self, users: Sequence[ActiveUser]) -> None:
        saves = [Saved(user.user_id, user.stamp, self._lists.new_stamp(), user.history) for user in users]
        stored = self._lists.save_histories(saves)
        conflicts = []
        acted: dict[TopicPartition, list[tuple[str, int]]] = {}
        for save, good in zip(saves, stored, strict=True):
            user = self._unsaved[save.user_id]
            if not good:
                conflicts.append(user)
                continue
            user.stamp = save.stamp
            if user.unsaved:
                last = user.unsaved[-1]
                acted.setdefault(last.where, []).append((user.user_id, last.kafka_ms))
            user.unsaved.clear()
            del self._unsaved[save.user_id]
        for where, named in acted.items():
            self._lists.note_active(where, named)
        if conflicts:
            self._continue_from_stored(conflicts)

    def _continue_from_stored(self, users: Sequence[ActiveUser]) -> None:
        self._metrics.history_conflicts.inc(len(users))
        stored = self._lists.histories([user.user_id for user in users])
        weights, length, hide = self._settings.event_weights, self._settings.history_length, self._settings.hide_seen
        restored = 0
        for user in users:
            user.stamp, history = stored[user.user_id]
            if user.history.covers(history) and not history.covers(user.history):
                # Redis has lost what was stored here, or a slower scorer wrote: ours has all of it, and more
                restored += 1
                continue
            user.history = history
            for event, where, offset, kafka_ms in user.unsaved:
                if not user.history.has_read(where, offset):
                    user.history.take(
                        event, where, offset, kafka_ms, weight=weights[event.type], length=length, hide=hide
                    )
        self._metrics.histories_restored.inc(restored)

    def _follow_weights(self) -> None:
        weights = self._reloader.weights
        if weights is not None and weights.version != self._weights_version:
            self._weights_version = weights.version
            self._active.learned(weights.manifest.trained_through)
            self._listless_again()

    def _listless_again(self) -> None:
        """There may be something to list now."""
        self._active.again(user for name, user in self._listless.items() if self._active.get(name) is user)
        self._listless.clear()

    def _write_lists(self) -> None:
        """Lists, until nobody needs one or the budget is spent. Raises StoreUnavailable; nobody is forgotten then."""
        self._lists_wait = False
        weights = self._reloader.weights
        if weights is None:
            return
        now = time.monotonic()
        self._budget_s = min(BURST_S, self._budget_s + (now - self._budget_at) * self._settings.list_budget)
        self._budget_at = now
        self._write_default(weights)
        end = now + 0.02  # then histories have their turn again
        while self._budget_s > 0 and (started := time.monotonic()) < end:
            group = self._next_group(weights.version, started - self._settings.refresh_interval_ms / 1000)
            if not group:
                return
            try:
                self._write_group(weights, group)
                self._health.set("lists", OK)
            except StoreUnavailable:
                self._active.again(group)
                raise
            self._budget_s -= time.monotonic() - started
        self._lists_wait = True

    def _next_group(self, version: int, written_before: float) -> list[ActiveUser]:
        self._groups += 1
        if self._groups % 2 and not self._active.pressing:
            latest = self._active.latest_group(GROUP, version, written_before - LATEST_AGE_S)
            if latest:
                return latest
        return self._active.next_group(GROUP, version, written_before)

    def _write_group(self, weights: Weights, group: Sequence[ActiveUser]) -> None:
        hide = self._settings.hide_seen != "none"
        with self._metrics.score_seconds.time(), weights.lock:
            manifest = weights.manifest  # of the weights as they are under the lock
            ranked = rank(
                weights.recommender,
                [user.history.items for user in group],
                self._settings.top_k,
                exclude=self._excluded(weights),
                hidden=[user.history.hidden for user in group] if hide else None,
            )
        at = timestamp()
        lists = [
            (
                user.user_id,
                list_json(
                    user.user_id,
                    best,
                    model_version=manifest.version,
                    trained_through=manifest.trained_through,
                    events_seen=user.history.events_seen,
                    generated_at=at,
                ),
            )
            for user, best in zip(group, ranked, strict=True)
            if best
        ]
        self._lists.write_lists(lists)
        self._metrics.written.inc(len(lists))
        done, now = now_ms(), time.monotonic()
        history = self._metrics.freshness.labels("history")
        learned = self._metrics.freshness.labels("learned")
        for user, best in zip(group, ranked, strict=True):
            if not best:  # at once again would be the same
                self._listless[user.user_id] = user
                continue
            self._listless.pop(user.user_id, None)
            for kafka_ms in user.unreflected:
                history.observe(max(0, done - kafka_ms) / 1000)
            for where, offset, kafka_ms in list(user.unlearned):
                if offset < manifest.trained_through.get(where.topic, {}).get(str(where.partition), 0):
                    learned.observe(max(0, done - kafka_ms) / 1000)
                    user.unlearned.remove((where, offset, kafka_ms))
            self._active.written(user, manifest.version, now)

    def _excluded(self, weights: Weights) -> NDArray[np.bool_] | None:
        """The rows of blocked items, worked out once a version or change of the catalogue."""
        if self._mask is None or self._mask[:2] != (weights.version, self._blocked_changes):
            mask = excluded(weights.recommender, self._catalogue.blocked)
            self._mask = (weights.version, self._blocked_changes, mask)
        return self._mask[2]

    def _write_default(self, weights: Weights) -> None:
        """The trending list, for users who are not known."""
        now = time.monotonic()
        if now - self._default_at < DEFAULT_LIST_EVERY_S:
            return
        with weights.lock:
            manifest = weights.manifest
            [best] = rank(weights.recommender, [[]], self._settings.top_k, exclude=self._excluded(weights))
        if best:
            self._lists.write_default(
                list_json(
                    "",
                    best,
                    model_version=manifest.version,
                    trained_through=manifest.trained_through,
                    events_seen=0,
                    generated_at=timestamp(),
                )
            )
        self._default_at = now

    def _keep_house(self) -> None:
        now = time.monotonic()
        if now - self._committed_at >= COMMIT_EVERY_S and self._next:
            self._committed_at = now
            self._commit_stored(now)
        for where, names in list(self._newcomers.items())[:1]:
            self._load(names[:500])
            if not names[500:]:
                del self._newcomers[where]
            else:
                self._newcomers[where] = names[500:]
        if now - self._housekept_at < HOUSEKEEPING_EVERY_S:
            return
        self._housekept_at = now
        if (lost := self._lists.lost()) is not None:
            self._restore(lost)
        self._active.forget_quiet(now_ms() - int(self._settings.active_seconds * 1000))
        status = self._source.status
        self._health.set("kafka", OK if status.healthy else status.message)
        self._metrics.active_users.set(len(self._active))
        self._metrics.lists_due.set(self._active.due)
        behind = 0
        for where, end in self._source.end_offsets().items():
            lag = max(0, end - self._next.get(where, end))
            behind += lag
            self._metrics.lag_events.labels(where.topic, str(where.partition)).set(lag)
        age = time.time() - self._newest_kafka_ms / 1000
        self._metrics.lag_seconds.set(age if behind and self._newest_kafka_ms else 0.0)
        if (weights := self._reloader.weights) is not None:
            self._metrics.model_age.set(max(0.0, time.time() - weights.manifest.created))

    def _restore(self, lost: Callable[[bytes], bool]) -> None:
        """Redis has gone back in time (a failover, a restart): what it has lost and is in memory is stored again."""
        users = [user for user in self._active.everyone() if user.history.events_seen and lost(user.stamp)]
        log.warning("Redis has lost what was written last: %d histories are stored again", len(users))
        self._unsaved.update((user.user_id, user) for user in users)
        self._active.lists_lost()
        self._active.again(users)

    def _commit_stored(self, now: float) -> None:
        """What was stored a while ago: whoever takes over reads the rest again, and histories know what is new."""
        self._stored.append((now, dict(self._next)))
        old = None
        while self._stored and self._stored[0][0] <= now - COMMIT_AFTER_S:
            old = self._stored.popleft()[1]
        if old is not None:
            self._commit(old)

    def _commit(self, offsets: Mapping[TopicPartition, int], *, wait: bool = False) -> None:
        ours = {where: offset for where, offset in offsets.items() if where in self._assigned}
        if ours:
            self._source.commit(ours, wait=wait)

    def _on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self._metrics.rebalances.inc()
        self._assigned.update(partitions)
        log.info("reading %s", ", ".join(f"{p.topic}[{p.partition}]" for p in sorted(self._assigned)))
        since = now_ms() - int(self._settings.active_seconds * 1000)
        limit = self._settings.max_active_users // 4
        try:
            for where in partitions:
                if names := self._lists.recently_active(where, since, limit):
                    self._newcomers[where] = names
        except StoreUnavailable as error:
            log.warning("who acted lately is not known, their lists wait for their next event: %s", error)

    def _on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Another scorer goes on: everything taken in is stored and committed first."""
        try:
            if self._unsaved:
                self._save()
            self._commit(self._next, wait=True)
        except StoreUnavailable as error:
            log.warning("what is not stored will be read again by the next scorer: %s", error)
        self._on_lost(partitions)

    def _on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._assigned.difference_update(partitions)
        for where in partitions:
            self._next.pop(where, None)
            for _, offsets in self._stored:
                offsets.pop(where, None)
            self._newcomers.pop(where, None)
        self._active.forget_partitions(partitions)
        self._unsaved = {name: user for name, user in self._unsaved.items() if name in self._active}
        self._listless = {name: user for name, user in self._listless.items() if name in self._active}

    def _live_version(self) -> int | None:
        return None if self._reloader.weights is None else self._reloader.weights.version

    def _until_stored(self, step: Callable[[], None]) -> None:
        """`step`, again and again while Redis is away: nothing more is read meanwhile, so nothing is lost."""
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

    def _finish(self) -> None:
        try:
            if self._unsaved:
                self._save()
            self._commit(self._next, wait=True)
        except StoreUnavailable as error:
            log.warning("what is not stored will be read again: %s", error)
        self._source.close()
        self._catalogue.close()
