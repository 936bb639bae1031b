"""The active users: those who acted lately, and whose list is to be written next. Pure: no I/O, the clock is passed in.

The order of lists: users whose latest events no list reflects yet (due); then users whose latest events the newest
weights have just learned from (learned); then all others (at rest), the stalest list first. `latest_group` gives those
at rest in another order: who acted last comes first.

Beyond the limit there are only users who acted since the last `forget_quiet`. Each has a history, and the events of it
that are not stored yet.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import NamedTuple

from consumers.events import Interaction
from consumers.records import Offsets, TopicPartition
from service.model.reranking import Kept
from service.scoring.freshness import Freshness
from service.scoring.user_history import UserHistory

LOOKS_PER_LIST = 4  # users looked at for each list wanted, so that a call is short when most lists are current
LATEST_LOOKS = 4000  # users looked at by `latest_group`: half a millisecond; a group of lists takes several


Edition = tuple[int, int]
"""What a list was made by: the version of the model, and the count of changes of the blocked items."""


class PlacedEvent(NamedTuple):
    """An event with its place in Kafka and its Kafka timestamp (epoch milliseconds)."""

    event: Interaction
    where: TopicPartition
    offset: int
    kafka_ms: int


@dataclass(slots=True)
class ActiveUser:
    """One user in memory."""

    user_id: str
    stamp: bytes  # of the stored history that `history` continues; empty where none is stored
    history: UserHistory
    unsaved: list[PlacedEvent] = field(default_factory=list)  # events in `history` that are not stored yet
    unanswered: bool = False  # the latest events are in no list yet, or only in an empty one
    awaited: bool = False  # their list is to be written also where it stays the same: it is due, or learned
    edition: Edition | None = None  # of the list that this scorer wrote last; None: it wrote none
    listed: tuple[str, ...] | None = None  # the items of that list
    kept: Kept | None = None  # candidates to order again while the user rests; None: they are to be looked for
    looked_at: float = 0.0  # when they were looked for, seconds of the writer's clock
    looked_for: int = 0  # the count of changes of the blocked items then: what is back is not among them


class ActiveUsers:
    """At most `limit` users; those who have been quiet longest are forgotten first (what is stored stays)."""

    def __init__(self, limit: int, freshness: Freshness | None = None) -> None:
        """`freshness` measures how long events wait for lists."""
        self._limit = limit
        self._freshness = Freshness() if freshness is None else freshness
        self._users: OrderedDict[str, ActiveUser] = OrderedDict()  # by latest event, quiet longest first
        self._due: dict[str, None] = {}
        self._learned: dict[str, None] = {}
        self._at_rest: OrderedDict[str, float] = OrderedDict()  # user -> when their list was written, oldest first
        self._current: OrderedDict[str, float] = OrderedDict()  # the same, for lists that are of edition `_looked_for`
        self._looked_for: Edition | None = None  # the edition that `next_group` was called with last

    def __len__(self) -> int:
        return len(self._users)

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._users

    @property
    def due(self) -> int:
        """How many users are due."""
        return len(self._due)

    def __getitem__(self, user_id: str) -> ActiveUser:
        return self._users[user_id]

    def add(self, user: ActiveUser) -> None:
        """Adds a user whose list may be stale. Until they act, they count as quieter than everybody else here."""
        known = user.user_id in self._users
        self._users[user.user_id] = user
        if not known:
            self._users.move_to_end(user.user_id, last=False)
        self._current.pop(user.user_id, None)
        self._at_rest[user.user_id] = 0.0
        self._at_rest.move_to_end(user.user_id, last=False)

    def acted(self, user: ActiveUser, taken: PlacedEvent) -> None:
        """The user's history has taken in a new event."""
        name = user.user_id
        self._users.move_to_end(name)
        self._due[name] = None
        self._learned.pop(name, None)
        user.unanswered, user.kept = True, None
        self._freshness.acted(name, taken.where, taken.offset, taken.kafka_ms)

    def learned(self, trained_through: Offsets) -> None:
        """To be called when there are weights that have learned from everything before these offsets."""
        for name in self._freshness.learned(trained_through, self._users):
            if name not in self._due:
                self._learned[name] = None

    def next_group(self, size: int, edition: Edition, written_before: float) -> list[ActiveUser]:
        """Up to `size` users whose lists are to be written now. For each the caller calls `written` or `again`.

        Users at rest are among them only if their list was written before `written_before` and is not of this edition.
        """
        names = _pop(self._due, size)
        names += _pop(self._learned, size - len(names))
        for name in names:
            self._at_rest.pop(name, None)
            self._current.pop(name, None)
            self._users[name].awaited = True
        if edition != self._looked_for:
            self._look_again()
            self._looked_for = edition
        for _ in range(LOOKS_PER_LIST * size):
            if len(names) >= size or not self._at_rest:
                break
            name, written = next(iter(self._at_rest.items()))
            if written > written_before:
                break
            del self._at_rest[name]
            if self._users[name].edition == edition:
                self._current[name] = written
            else:
                names.append(name)
        return [self._users[name] for name in names]

    @property
    def pressing(self) -> bool:
        """Whether anybody is due or learned."""
        return bool(self._due or self._learned)

    def latest_group(self, size: int, edition: Edition, written_before: float) -> list[ActiveUser]:
        """Like `next_group`, for users at rest alone, those who acted last first: they are the likeliest to look again
        when there is not enough time to rewrite everybody's list."""
        names = []
        for name in islice(reversed(self._users), LATEST_LOOKS):
            written = self._at_rest.get(name)
            if written is not None and written <= written_before and self._users[name].edition != edition:
                names.append(name)
                if len(names) == size:
                    break
        for name in names:
            del self._at_rest[name]
        return [self._users[name] for name in names]

    def written(self, user: ActiveUser, edition: Edition, now: float, now_ms: int, *, empty: bool = False) -> None:
        """To be called when the user's list of this edition is in Redis. `now`: seconds of the passed clock; `now_ms`:
        the same time in epoch milliseconds."""
        user.edition, user.unanswered, user.awaited = edition, empty, False
        self._freshness.written(user.user_id, now_ms)
        if user.user_id not in self._users:
            return
        self._current.pop(user.user_id, None)
        self._at_rest[user.user_id] = now
        self._at_rest.move_to_end(user.user_id)

    def again(self, users: Iterable[ActiveUser]) -> None:
        """Makes users due again whose lists could not be written."""
        for user in users:
            if user.user_id in self._users:
                self._due[user.user_id] = None
                self._learned.pop(user.user_id, None)

    def _look_again(self) -> None:
        """For a new edition, in which no list is current: puts the current ones back among those at rest, by the time
        they were written. They are older than most others there, so they belong near the front."""
        if not self._current:
            return
        oldest = next(iter(self._current.values()))
        older = []
        while self._at_rest and next(iter(self._at_rest.values())) < oldest:
            older.append(self._at_rest.popitem(last=False))
        for name, written in (*reversed(self._current.items()), *reversed(older)):
            self._at_rest[name] = written
            self._at_rest.move_to_end(name, last=False)
        self._current.clear()

    def everyone(self) -> Iterator[ActiveUser]:
        """All active users, the one quiet longest first."""
        return iter(self._users.values())

    def lists_lost(self) -> None:
        """To be called when Redis may have lost lists: all count as lists of an older edition, so they are
        rewritten."""
        for user in self._users.values():
            user.edition = user.listed = None
        self._look_again()

    def forget(self, user_id: str) -> None:
        """Drops a user from memory; the stored history stays."""
        if self._users.pop(user_id, None) is not None:
            self._freshness.forget(user_id)
        self._due.pop(user_id, None)
        self._learned.pop(user_id, None)
        self._at_rest.pop(user_id, None)
        self._current.pop(user_id, None)

    def forget_partitions(self, lost: Iterable[TopicPartition]) -> None:
        """Drops the users who have events in these partitions, which another scorer reads from now on."""
        gone = set(lost)
        for name in [n for n, u in self._users.items() if not gone.isdisjoint(u.history.next_offsets)]:
            self.forget(name)
        self._freshness.lose(gone)

    def forget_quiet(self, before_ms: int) -> None:
        """Drops users who have not acted since `before_ms` (epoch milliseconds), and those beyond the limit.

        Unanswered users are kept within the limit, however quiet: there may be no weights yet, or nothing to list, or
        much to catch up with, and nobody else would write their list. Users with unsaved events are always kept.
        """
        quiet = takewhile(lambda user: user.history.last_event_ms < before_ms, self._users.values())
        for user in [user for user in quiet if not (user.unanswered or user.unsaved)]:
            self.forget(user.user_id)
        while len(self._users) > self._limit:
            user = next(iter(self._users.values()))
            if user.unsaved:
                return
            self.forget(user.user_id)


def _pop(names: dict[str, None], count: int) -> list[str]:
    taken: list[str] = []
    while names and len(taken) < count:
        name = next(iter(names))
        del names[name]
        taken.append(name)
    return taken
