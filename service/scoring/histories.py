"""Loads the histories of active users from Redis, takes each event in once, and stores them again.

A history holds the offsets up to which it has read, so records may be taken again, and a scorer that takes partitions
over continues each history exactly.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

from consumers.decode import decode
from consumers.events import Interaction
from consumers.records import Record, TopicPartition
from consumers.times import now_ms
from service.metrics import ScorerMetrics
from service.scoring.active_users import ActiveUser, ActiveUsers, PlacedEvent
from service.scoring.list_store import ListStore, Saved
from service.scoring.live_rule import LiveRule
from service.scoring.pace import Pace
from service.scoring.user_history import UserHistory
from service.settings import ScorerSettings

log = logging.getLogger(__name__)

SAVE_AT_ONCE = 2000  # histories in one round trip: a few megabytes
LOAD_AT_ONCE = 500  # users of partitions taken over that are loaded between two windows of events


class Histories:
    """A method that raised StoreUnavailable may be called again: nothing is lost, and nothing is counted twice."""

    def __init__(
        self,
        lists: ListStore,
        active: ActiveUsers,
        rule: LiveRule,
        settings: ScorerSettings,
        metrics: ScorerMetrics,
        pace: Pace | None = None,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        """`pace` is told of the events that are taken. `clock`: epoch milliseconds, as Kafka's timestamps are."""
        self._pace = Pace() if pace is None else pace
        self._lists, self._active, self._rule, self._settings = lists, active, rule, settings
        self._metrics, self._clock = metrics, clock
        self._unsaved: dict[str, ActiveUser] = {}
        # users to load, who acted lately in partitions just taken over
        self._newcomers: dict[TopicPartition, list[str]] = {}

    @property
    def saved(self) -> bool:
        """Whether all histories are stored as they are."""
        return not self._unsaved

    # -- in ------------------------------------------------------------------------------------------------------------

    def take(self, records: Sequence[Record]) -> None:
        """Takes records into the histories of their users. Raises: StoreUnavailable."""
        self._rule.follow()
        rules = replace(self._settings.decode_rules, event_types=self._rule.current.event_weights)
        decoded = decode(records, rules, self._clock())
        events = [(o, r) for o, r in zip(decoded.outcomes, records, strict=True) if isinstance(o, Interaction)]
        self._load([event.user_id for event, _ in events])
        for event, record in events:
            self._take(event, record)
        self._pace.observe([event.ts for event, _ in events], [record.timestamp_ms for _, record in events])
        for reject in decoded.rejects:
            self._metrics.events_rejected.labels(reject.code).inc()

    def _load(self, user_ids: Sequence[str]) -> None:
        """Loads the histories of users who are not in memory."""
        missing = [user for user in dict.fromkeys(user_ids) if user not in self._active]
        if missing:
            for user, (stamp, history) in self._lists.histories(missing).items():
                history.last_event_ms = self._acted_ms(history.last_event_ms)
                self._active.add(ActiveUser(user, stamp, history))

    def _take(self, event: Interaction, record: Record) -> None:
        user, metrics = self._active[event.user_id], self._metrics
        taken = PlacedEvent(event, TopicPartition(record.topic, record.partition), record.offset, record.timestamp_ms)
        if user.history.has_read(taken.where, taken.offset):
            return
        new = self._add(user.history, taken)
        user.unsaved.append(taken)
        self._unsaved[user.user_id] = user
        metrics.events_consumed.labels(event.type).inc()
        if new:
            self._active.acted(user, taken)
        else:
            metrics.events_duplicate.inc()
        if record.key is None or record.key != event.user_id.encode():
            metrics.events_misrouted.inc()

    def _add(self, history: UserHistory, taken: PlacedEvent) -> bool:
        return history.take(
            taken.event,
            taken.where,
            taken.offset,
            self._acted_ms(taken.kafka_ms),
            rule=self._rule.current,
            hide=self._settings.hide_seen,
        )

    def _acted_ms(self, kafka_ms: int) -> int:
        """When a user acted, by Kafka's timestamp of the event, but not later than this process's clock: a producer
        whose clock is ahead must not keep its user active for as long."""
        return min(kafka_ms, self._clock())

    # -- out -----------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Stores every history that has changed. Where another scorer has changed the stored one, that is read again
        and continued. Raises: StoreUnavailable."""
        while self._unsaved:
            self._save_some(list(islice(self._unsaved.values(), SAVE_AT_ONCE)))

    def _save_some(self, users: Sequence[ActiveUser]) -> None:
        saves = [Saved(user.user_id, user.stamp, self._lists.new_stamp(), user.history) for user in users]
        stored = self._lists.save_histories(saves)
        kept, conflicts = list[ActiveUser](), list[ActiveUser]()
        for user, save, good in zip(users, saves, stored, strict=True):
            (kept if good else conflicts).append(user)
            if good:
                user.stamp = save.stamp
        self._note_active([user for user in kept if user.unsaved])
        for user in kept:  # only after they are noted: if that fails, they are saved and noted again
            user.unsaved.clear()
            del self._unsaved[user.user_id]
        if conflicts:
            self._continue_from_stored(conflicts)

    def _note_active(self, users: Sequence[ActiveUser]) -> None:
        """Notes in Redis that these users acted, for a scorer that takes their partitions over."""
        acted: dict[TopicPartition, list[tuple[str, int]]] = {}
        for user in users:
            last = user.unsaved[-1]
            acted.setdefault(last.where, []).append((user.user_id, self._acted_ms(last.kafka_ms)))
        for where, named in acted.items():
            self._lists.note_active(where, named, self._quiet_before())

    def _continue_from_stored(self, users: Sequence[ActiveUser]) -> None:
        """Reads the histories of users again, and takes in their unsaved events where the stored one lacks them."""
        stored = self._lists.histories([user.user_id for user in users])
        self._metrics.history_conflicts.inc(len(users))
        for user in users:
            user.stamp, history = stored[user.user_id]
            if user.history.covers(history) and not history.covers(user.history):
                # Redis has lost what was stored, or a slower scorer wrote: ours has read all that it has, and more
                self._metrics.histories_restored.inc()
                continue
            user.history = history
            for taken in user.unsaved:
                if not history.has_read(taken.where, taken.offset):
                    self._add(history, taken)

    def restore(self) -> None:
        """Looks whether Redis has lost writes (by a failover or a restart), and stores the lost histories and lists of
        active users again. Raises: StoreUnavailable."""
        lost = self._lists.lost()
        if lost is None:
            return
        users = [user for user in self._active.everyone() if user.history.events_seen and lost(user.stamp)]
        log.warning("Redis has lost what was written last: %d histories are stored again", len(users))
        self._unsaved.update((user.user_id, user) for user in users)
        self._active.lists_lost()
        self._active.again(users)
        self.save()  # before anybody can be forgotten

    # -- partitions ----------------------------------------------------------------------------------------------------

    def take_over(self, partitions: Sequence[TopicPartition]) -> None:
        """Looks up who acted lately in these partitions; `load_newcomers` loads them. Raises: StoreUnavailable.

        A user who is in memory already, because of misrouted events in other partitions, is loaded again: the scorer
        before may have stored further events, which will not be read here.
        """
        self._forget(partitions)
        limit = self._settings.max_active_users // 4
        for where in partitions:
            if names := self._lists.recently_active(where, self._quiet_before(), limit):
                self._newcomers[where] = names

    def load_newcomers(self) -> None:
        """Loads the next few users found by `take_over`. Raises: StoreUnavailable."""
        if self._newcomers:
            where, names = next(iter(self._newcomers.items()))
            self._load(names[:LOAD_AT_ONCE])
            del names[:LOAD_AT_ONCE]
            if not names:
                del self._newcomers[where]

    def lose(self, partitions: Sequence[TopicPartition]) -> None:
        """Drops the users of partitions that another scorer reads from now on."""
        for where in partitions:
            self._newcomers.pop(where, None)
        self._forget(partitions)

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        self._active.forget_partitions(partitions)
        self._unsaved = {name: user for name, user in self._unsaved.items() if name in self._active}

    def forget_quiet(self) -> None:
        """Drops users who have not acted for the setting `active_seconds`, or are beyond the limit."""
        self._active.forget_quiet(self._quiet_before())

    def _quiet_before(self) -> int:
        return self._clock() - int(self._settings.active_seconds * 1000)
