"""Who acted lately, and whose list is to be written next. Pure: no I/O, the clock is passed in.

The order: users whose latest events no list reflects yet; then users whose latest events the newest weights have just
learned from; then everyone else who acted lately: stalest list first, and in every other group those who acted last.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from consumers.events import Interaction
from consumers.records import TopicPartition
from service.scoring.user_history import UserHistory

UNLEARNED_PER_USER = 200  # events of a user remembered for the `learned` freshness; older ones are simply not measured
UNLEARNED_PER_PARTITION = 200_000
LOOKS_PER_LIST = 4  # bounds a call when most lists are already of the newest version
LATEST_LOOKS = 4000  # of `latest_group`: half a millisecond, beside the milliseconds that a group of lists takes


class Taken(NamedTuple):
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
    unsaved: list[Taken] = field(default_factory=list)  # taken in since the stored history
    unreflected: list[int] = field(default_factory=list)  # kafka_ms of events no list reflects yet
    unlearned: deque[tuple[TopicPartition, int, int]] = field(
        default_factory=lambda: deque(maxlen=UNLEARNED_PER_USER)
    )  # (where, offset, kafka_ms) of events no list's weights have learned from yet
    list_version: int | None = None  # of the list this scorer wrote last


class ActiveUsers:
    """At most `limit` users; the one who has been quiet longest is forgotten first (what is stored stays)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._users: OrderedDict[str, ActiveUser] = OrderedDict()  # by latest event, quiet longest first
        self._due: dict[str, None] = {}
        self._learned: dict[str, None] = {}
        self._at_rest: OrderedDict[str, float] = OrderedDict()  # user -> when their list was written, oldest first
        self._current: OrderedDict[str, float] = OrderedDict()  # as above, lists found to be of `_looked_for` already
        self._looked_for: int | None = None  # the version of the last look at the users at rest
        self._unlistable: dict[str, None] = {}  # nothing could be listed for them: they wait for a change
        self._waiting: dict[TopicPartition, deque[tuple[int, str]]] = {}  # offsets not yet learned from

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

    def acted(self, user: ActiveUser, taken: Taken) -> None:
        """The user's history has taken in a new event."""
        name = user.user_id
        self._users.move_to_end(name)
        self._due[name] = None
        self._learned.pop(name, None)
        user.unreflected.append(taken.kafka_ms)
        user.unlearned.append((taken.where, taken.offset, taken.kafka_ms))
        waiting = self._waiting.get(taken.where)
        if waiting is None:
            waiting = self._waiting[taken.where] = deque(maxlen=UNLEARNED_PER_PARTITION)
        waiting.append((taken.offset, name))

    def learned(self, trained_through: Mapping[str, Mapping[str, int]]) -> None:
        """New weights have learned from everything before these offsets."""
        for (topic, partition), waiting in self._waiting.items():
            through = trained_through.get(topic, {}).get(str(partition), 0)
            while waiting and waiting[0][0] < through:
                name = waiting.popleft()[1]
                if name in self._users and name not in self._due:
                    self._learned[name] = None

    def next_group(self, size: int, version: int, written_before: float) -> list[ActiveUser]:
        """Up to `size` users whose lists are to be written now; they count as taken until `written` or `again`.

        Users at rest come only if their list was written before `written_before` by another version than `version`.
        """
        names = _pop(self._due, size)
        names += _pop(self._learned, size - len(names))
        for name in names:
            self._at_rest.pop(name, None)
            self._current.pop(name, None)
        if version != self._looked_for:
            self._look_again()
            self._looked_for = version
        for _ in range(LOOKS_PER_LIST * size):
            if len(names) >= size or not self._at_rest:
                break
            name, written = next(iter(self._at_rest.items()))
            if written > written_before:
                break
            del self._at_rest[name]
            if self._users[name].list_version == version:
                self._current[name] = written
            else:
                names.append(name)
        return [self._users[name] for name in names]

    @property
    def pressing(self) -> bool:
        """Whether somebody's latest events are not in their list yet, or have just been learned from."""
        return bool(self._due or self._learned)

    def latest_group(self, size: int, version: int, written_before: float) -> list[ActiveUser]:
        """Like `next_group`, of users at rest alone and among them those who acted last: they are the likeliest to
        look again, when there is not the time to rewrite everybody's list."""
        names = []
        for name in islice(reversed(self._users), LATEST_LOOKS):
            written = self._at_rest.get(name)
            if written is not None and written <= written_before and self._users[name].list_version != version:
                names.append(name)
                if len(names) == size:
                    break
        for name in names:
            del self._at_rest[name]
        return [self._users[name] for name in names]

    def written(self, user: ActiveUser, version: int, now: float) -> None:
        """The user's list is in Redis, made by `version` at `now`."""
        user.list_version = version
        user.unreflected.clear()
        if user.user_id not in self._users:
            return
        self._unlistable.pop(user.user_id, None)
        self._current.pop(user.user_id, None)
        self._at_rest[user.user_id] = now
        self._at_rest.move_to_end(user.user_id)

    def again(self, users: Iterable[ActiveUser]) -> None:
        """Their lists could not be written: they are due again."""
        for user in users:
            if user.user_id in self._users:
                self._due[user.user_id] = None
                self._learned.pop(user.user_id, None)

    def unlistable(self, user: ActiveUser) -> None:
        """There was nothing to list for the user, nor would there be at once: they wait until they act, or for
        `listable`."""
        if user.user_id in self._users:
            self._unlistable[user.user_id] = None

    def listable(self) -> None:
        """There may be something to list now."""
        self.again(self._users[name] for name in self._unlistable)
        self._unlistable.clear()

    def _look_again(self) -> None:
        """A new version: no list is current any more. They go back in front, behind lists that are older still."""
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
        """Nobody knows any more which lists are there: all are rewritten, as those of an older version would be."""
        for user in self._users.values():
            user.list_version = None
        self._look_again()

    def forget(self, user_id: str) -> None:
        self._users.pop(user_id, None)
        self._due.pop(user_id, None)
        self._learned.pop(user_id, None)
        self._at_rest.pop(user_id, None)
        self._current.pop(user_id, None)
        self._unlistable.pop(user_id, None)

    def forget_partitions(self, lost: Iterable[TopicPartition]) -> None:
        """Users whose events come from partitions that another scorer now reads."""
        gone = set(lost)
        for name in [n for n, u in self._users.items() if not gone.isdisjoint(u.history.next_offsets)]:
            self.forget(name)
        for where in gone:
            self._waiting.pop(where, None)

    def forget_quiet(self, before_ms: int) -> None:
        """Those who have not acted since `before_ms` (epoch milliseconds), and whoever is beyond the limit.

        Within the limit, whoever has events that no list reflects is kept, and whoever has acted since: there may be no
        weights yet, or nothing to list, or much to catch up with.
        """
        while self._users:
            user = next(iter(self._users.values()))
            wanted = user.unreflected or user.history.last_event_ms >= before_ms
            if user.unsaved or (len(self._users) <= self._limit and wanted):
                return
            self.forget(user.user_id)


def _pop(names: dict[str, None], count: int) -> list[str]:
    taken: list[str] = []
    while names and len(taken) < count:
        name = next(iter(names))
        del names[name]
        taken.append(name)
    return taken
