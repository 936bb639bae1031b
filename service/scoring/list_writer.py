"""Writes lists to Redis, a group at a time, within a budget of compute.

An empty list, because every item is hidden, deleted or not available, is written like any other: the list that it
replaces may hold an item that must not be offered.
"""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from consumers.records import TopicPartition, from_topics
from consumers.times import iso, now_ms
from model_store.errors import StoreUnavailable
from model_store.version import Head
from service.health import OK, Health
from service.metrics import ScorerMetrics
from service.model.query import NOT_KNOWN
from service.model.recommender import Recommender
from service.scoring.active_users import ActiveUser, ActiveUsers, Edition
from service.scoring.blocked_items import BlockedItems
from service.scoring.budget import Budget
from service.scoring.list_store import ListStore, UserList
from service.scoring.pace import Pace
from service.scoring.recommendations import list_json
from service.scoring.related import RelatedLists
from service.scoring.reloader import Reloader, ServedModel
from service.scoring.top_k import Ask, ScoredItems, best_items, excluded
from service.settings import ScorerSettings

GROUP = 64  # lists made together
AT_ONCE_S = 0.02  # a call of `write` ends after this, so that histories have their turn
DEFAULT_LIST_EVERY_S = 1.0
KEPT = (
    80  # candidates kept of a user: a list of 50 is of the best 80 of a few seconds ago but for one item in a thousand
)
KEPT_USERS = 20_000  # 12 kB each
LOOK_AGAIN_S = 20.0  # candidates are looked for again after this, though their user rests
READ_AFTER_S = 1.0  # nobody reads a list and acts on it sooner
LATEST_AGE_S = 0.5  # a list in `latest_group` is older than the refresh interval by this


class ListWriter:
    def __init__(
        self,
        active: ActiveUsers,
        reloader: Reloader,
        blocked: BlockedItems,
        lists: ListStore,
        settings: ScorerSettings,
        *,
        metrics: ScorerMetrics,
        health: Health,
        related: RelatedLists | None = None,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`related`: written with the time that users' lists leave over. `pace`: of the events that are read; by
        default that of a live stream."""
        self._related, self._pace = related, Pace() if pace is None else pace
        self.lists_wait = False  # whether the last `write` ended while lists were still to be written
        self._active, self._reloader, self._blocked, self._lists = active, reloader, blocked, lists
        self._settings, self._metrics, self._health, self._clock = settings, metrics, health, clock
        self._budget = Budget(settings.list_budget, clock())
        self._followed: int | None = None  # the version whose offsets `ActiveUsers.learned` was told last
        self._mask: tuple[tuple[int, int], NDArray[np.bool_] | None] | None = None  # edition, its `_excluded`
        self._groups = 0
        self._default_at = -math.inf
        self._nothing: Edition | None = None  # the edition in which the trending list was empty; None: it was not

    @property
    def has_work(self) -> bool:
        """Whether `write` has something to do that should not wait: users who are due, or a new version."""
        served = self._served
        return served is not None and (self._active.due > 0 or served.version != self._followed)

    @property
    def _served(self) -> ServedModel | None:
        """The live model, once it knows any items. A model without items would replace good lists by empty ones:
        version 1 of a new model, or the only version left whole of a damaged one."""
        served = self._reloader.served
        return served if served is not None and served.recommender.size else None

    def write(self) -> None:
        """Writes lists until no user needs one, or the budget or AT_ONCE_S is spent. Raises: StoreUnavailable; the
        users of the failed group are due again then."""
        self.lists_wait = False
        if (served := self._served) is None:
            return
        self._active.learned(from_topics(served.manifest.trained_through))
        self._followed = served.version
        now = self._clock()
        self._budget.earn(now)
        self._write_default(served, now)
        end = now + AT_ONCE_S
        while self._budget.left_s > 0 and (started := self._clock()) < end:
            stale = started - self._settings.refresh_interval_ms / 1000
            group = self._next_group(self._edition(served.version), stale)
            if not group:
                if self._related is not None and not self._active.pressing:
                    self._related.write(served, self._excluded(served))
                    self._budget.spend(self._clock() - started)
                return
            try:
                self._write_group(served, group)
            except StoreUnavailable:
                self._active.again(group)
                raise
            self._health.set("lists", OK)
            self._budget.spend(self._clock() - started)
        self.lists_wait = True

    def _edition(self, version: int) -> Edition:
        """The present edition. Lists of another edition are stale: other weights or blocked items make other lists."""
        return version, self._blocked.changes

    def _next_group(self, edition: Edition, written_before: float) -> list[ActiveUser]:
        self._groups += 1
        if self._groups % 2 and not self._active.pressing:
            latest = self._active.latest_group(GROUP, edition, written_before - LATEST_AGE_S)
            if latest:
                return latest
        return self._active.next_group(GROUP, edition, written_before)

    def _write_group(self, served: ServedModel, group: Sequence[ActiveUser]) -> None:
        """Makes the lists of a group, and writes those that have changed, or that somebody waits for: whose user acted,
        or whose events the weights have learned from."""
        looked_before, changes = self._clock() - LOOK_AGAIN_S, self._blocked.changes
        keep = max(KEPT, self._settings.top_k) if len(self._active) <= KEPT_USERS else 0
        with self._metrics.score_seconds.time(), served.lock:
            manifest = served.manifest  # of the weights as they are under the lock
            asked = [self._ask(user, served.recommender, looked_before) for user in group]
            ranked, candidates = best_items(
                served.recommender,
                asked,
                self._settings.top_k,
                exclude=self._excluded(served),
                keep=keep,
                after=READ_AFTER_S * self._pace.value,
            )
        at, now = iso(now_ms()), self._clock()
        written: list[UserList] = []
        for user, ask, best, found in zip(group, asked, ranked, candidates, strict=True):
            user.kept = found if keep else None
            if ask.kept is None:
                user.looked_at, user.looked_for = now, changes
            items = tuple(item for item, _ in best)
            # what is blocked may have been swept out of the list, and be back by now
            swept = user.edition is None or user.edition[1] != changes
            if items == user.listed and not user.awaited and not swept:
                self._metrics.unchanged.inc()
                continue
            user.listed = items
            raw = _json(user.user_id, best, manifest, user.history.events_seen, at)
            written.append(UserList(user.user_id, list(items), raw, self._swept_with(user)))
        if written:
            self._lists.write_lists(written)
        self._metrics.written.inc(len(written))
        edition, wall = self._edition(manifest.version), now_ms()
        for user, best in zip(group, ranked, strict=True):
            self._active.written(user, edition, now, wall, empty=not best)

    def _ask(self, user: ActiveUser, recommender: Recommender, looked_before: float) -> Ask:
        ms, kept = user.history.last_item_ms, user.kept
        good = user.looked_at > looked_before and user.looked_for == self._blocked.changes
        return Ask(
            user.history.items,
            NOT_KNOWN if ms is None else ms / 1000,
            user.history.left_out(self._settings.hide_seen),
            kept if kept is not None and good and recommender.keeps(kept) else None,
        )

    def _swept_with(self, user: ActiveUser) -> list[TopicPartition]:
        """The partitions of the user's events: the scorers that read them sweep the list. Partition 0 for a user
        without known events (whose history was damaged)."""
        topic = self._settings.events_topic
        found = [where for where in user.history.next_offsets if where.topic == topic]
        return found or [TopicPartition(topic, 0)]

    def _write_default(self, served: ServedModel, now: float) -> None:
        """Writes the trending list, for users without a list: every DEFAULT_LIST_EVERY_S, and at once where it was
        empty and the edition has changed."""
        edition = self._edition(served.version)
        due = now - self._default_at >= DEFAULT_LIST_EVERY_S or self._nothing not in (None, edition)
        if not due:
            return
        with served.lock:
            manifest = served.manifest
            nobody = Ask((), NOT_KNOWN)
            [best], _ = best_items(served.recommender, [nobody], self._settings.top_k, exclude=self._excluded(served))
        self._lists.write_default(_json("", best, manifest, 0, iso(now_ms())))
        self._default_at, self._nothing = now, None if best else edition

    def _excluded(self, served: ServedModel) -> NDArray[np.bool_] | None:
        """[size] True for blocked items; computed once an edition."""
        of = (served.version, self._blocked.changes)
        if self._mask is None or self._mask[0] != of:
            self._mask = (of, excluded(served.recommender, self._blocked.ids))
        return self._mask[1]


def _json(user_id: str, best: ScoredItems, manifest: Head, events_seen: int, at: str) -> bytes:
    return list_json(
        user_id,
        best,
        model_version=manifest.version,
        trained_through=manifest.trained_through,
        events_seen=events_seen,
        generated_at=at,
    )
