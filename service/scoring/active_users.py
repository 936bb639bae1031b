"""Who acted lately, and whose list is to be written next. Pure: no I/O, the clock is passed in.

The order: users whose latest events no list reflects yet; then users whose latest events the newest weights have just
learned from; then everyone else who acted lately: stalest list first, and in every other group those who acted last.

No more are held than the limit says and have acted since `forget_quiet` was called last; of each of them their history,
and what of their events is not stored yet.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import NamedTuple

from consumers.events import Interaction
from consumers.records import Offsets, TopicPartition
from service.scoring.freshness import Freshness
from service.scoring.user_history import UserHistory

LOOKS_PER_LIST = 4  # bounds a call when most lists are of the present edition already
LATEST_LOOKS = 4000  # of `latest_group`: half a millisecond, beside the milliseconds that a group of lists takes


Edition = tuple[int, int]
"""What a list was made by: the version of the model, and how often what may not be listed had changed."""


class PlacedEvent(NamedTuple):
    """An event with where it stood."""

    event: Interaction
    where: TopicPartition
    offset: int
    kafka_ms: int


@dataclass(slots=True)
class ActiveUser:
    user_id: str
    stamp: bytes  # of the stored history this one continues; empty where none is stored
    history: UserHistory
    unsaved: list[PlacedEvent] = field(default_factory=list)  # taken in since the stored history
    unanswered: bool = False  # their latest events are in no list yet, or in one that is empty
    edition: Edition | None = None  # of the list this scorer wrote last


class ActiveUsers:
    """At most `limit` users; the one who has been quiet longest is forgotten first (what is stored stays)."""

    def __init__(self, limit: int, freshness: Freshness | None = None) -> None:
        """`freshness` measures how long their events wait."""
        self._limit = limit
        self._freshness = Freshness() if freshness is None else freshness
        self._users: OrderedDict[str, ActiveUser] = OrderedDict()  # by latest event, quiet longest first
        self._due: dict[str, None] = {}
        self._learned: dict[str, None] = {}
        self._at_rest: OrderedDict[str, float] = OrderedDict()  # user -> when their list was written, oldest first
        self._current: OrderedDict[str, float] = OrderedDict()  # as above, lists found to be of `_looked_for` already
        self._looked_for: Edition | None = None  # in the last look at the users at rest

    def __len__(self) -> int:
        return len(self._users)

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._users

    @property
    def due(self) -> int:
        return len(self._due)

    def __getitem__(self, user_id: str) -> ActiveUser:
        return self._users[user_id]

    def add(self, user: ActiveUser) -> None:
        """A user from storage, whose list may be stale. Until they act, they count as quieter than who is here."""
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
        user.unanswered = True
        self._freshness.acted(name, taken.where, taken.offset, taken.kafka_ms)

    def learned(self, trained_through: Offsets) -> None:
        """The weights have learned from everything before these offsets."""
        for name in self._freshness.learned(trained_through, self._users):
            if name not in self._due:
                self._learned[name] = None

    def next_group(self, size: int, edition: Edition, written_before: float) -> list[ActiveUser]:
        """Up to `size` users whose lists are to be written now; they count as taken until `written` or `again`.

        Users at rest come only if their list was written before `written_before` and is not of this edition.
        """
        names = _pop(self._due, size)
        names += _pop(self._learned, size - len(names))
        for name in names:
            self._at_rest.pop(name, None)
            self._current.pop(name, None)
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
        """Whether somebody's latest events are not in their list yet, or have just been learned from."""
        return bool(self._due or self._learned)

    def latest_group(self, size: int, edition: Edition, written_before: float) -> list[ActiveUser]:
        """Like `next_group`, of users at rest alone and among them those who acted last: they are the likeliest to
        look again, when there is not the time to rewrite everybody's list."""
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
        """The user's list is in Redis, of `edition`, since `now` (which is `now_ms` of Kafka's clock)."""
        user.edition, user.unanswered = edition, empty
        self._freshness.written(user.user_id, now_ms)
        if user.user_id not in self._users:
            return
        self._current.pop(user.user_id, None)
        self._at_rest[user.user_id] = now
        self._at_rest.move_to_end(user.user_id)

    def again(self, users: Iterable[ActiveUser]) -> None:
        """Their lists could not be written: they are due again."""
        for user in users:
            if user.user_id in self._users:
                self._due[user.user_id] = None
                self._learned.pop(user.user_id, None)

    def _look_again(self) -> None:
        """A new edition: no list is current any more. They go back in front, behind lists that are older still."""
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
        return iter(self._users.values())

    def lists_lost(self) -> None:
        """Nobody knows any more which lists are there: all are rewritten, as those of an older edition would be."""
        for user in self._users.values():
            user.edition = None
        self._look_again()

    def forget(self, user_id: str) -> None:
        if self._users.pop(user_id, None) is not None:
            self._freshness.forget(user_id)
        self._due.pop(user_id, None)
        self._learned.pop(user_id, None)
        self._at_rest.pop(user_id, None)
        self._current.pop(user_id, None)

    def forget_partitions(self, lost: Iterable[TopicPartition]) -> None:
        """Users whose events come from partitions that another scorer now reads."""
        gone = set(lost)
        for name in [n for n, u in self._users.items() if not gone.isdisjoint(u.history.next_offsets)]:
            self.forget(name)
        self._freshness.lose(gone)

    def forget_quiet(self, before_ms: int) -> None:
        """Those who have not acted since `before_ms` (epoch milliseconds), and whoever is beyond the limit.

        Within the limit, whoever is unanswered is kept however quiet: there may be no weights yet, or nothing to list,
        or much to catch up with, and nobody else would write their list. Whoever has unsaved events is kept always.
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
