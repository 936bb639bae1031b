"""Whether a reader can read, from what its own client says of it: pure, the clock is passed in.

Only what this client has received counts. That another client of the same process reaches the broker says nothing of
whether this one may read, is a member of its group, or gets its records.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from consumers.records import Offsets, TopicPartition

PATIENCE_S = 8.0  # a group has formed by then, and a record that is there has come; people are to know within 10 s
_POLL_GAP_S = 1.0  # a reader that did not poll for so long was not waiting for records


@dataclass(slots=True)
class _Partition:
    position: int | None = None  # the offset to read next; None until a record or the end has been seen
    error: str = ""  # what the broker answered last, where that was no records
    hungry_since: float | None = None  # since when polls have come back empty though there is more to read


class Reading:
    """Told of everything that one consumer receives; `trouble` says what keeps it from reading."""

    def __init__(self, clock: Callable[[], float], group: str = "") -> None:
        """`clock`: seconds. `group`: what it is a member of, or '' where it reads partitions of its own choice."""
        self._clock = clock
        self._group = group
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._fatal = ""
        self._connection = ""
        self._group_error = ""
        self._joining_since: float | None = clock() if group else None
        self._topic_errors: dict[str, str] = {}
        self._polled_at = clock()

    # what is read

    def take_up(self, partitions: Iterable[TopicPartition], position: int | None = None) -> None:
        """They are read from now on, from `position` where that is known."""
        for partition in partitions:
            self._partitions[partition] = _Partition(position)
            self._topic_errors.pop(partition.topic, None)

    def give_up(self, partitions: Iterable[TopicPartition]) -> None:
        """They are not read any more."""
        for partition in partitions:
            self._partitions.pop(partition, None)

    @property
    def partitions(self) -> list[TopicPartition]:
        return sorted(self._partitions)

    def position(self, partition: TopicPartition) -> int | None:
        """The offset to read next, where it is known."""
        state = self._partitions.get(partition)
        return None if state is None else state.position

    def positions(self) -> dict[TopicPartition, int]:
        """The offset to read next, of each partition where it is known: everything before it has been received."""
        known = ((partition, state.position) for partition, state in list(self._partitions.items()))
        return {partition: position for partition, position in known if position is not None}

    def moved(self, partition: TopicPartition, position: int) -> None:
        """Reading of it goes on at `position`, whatever came before; its last error holds until something comes."""
        if (state := self._partitions.get(partition)) is not None:
            state.position, state.hungry_since = position, None

    def anew(self, why: str) -> "Reading":
        """Of the client that goes on where this one has failed; in trouble, for `why`, until it reads too."""
        successor = Reading(self._clock, self._group)
        if self._group:
            successor.group_failed(why)
        else:
            successor.connection_failed(why)
        return successor

    # what the client receives

    def received(self, partition: TopicPartition, position: int) -> None:
        """Everything before `position` has come: a record, or word that this is the end."""
        if (state := self._partitions.get(partition)) is not None:
            state.position, state.error, state.hungry_since = max(position, state.position or 0), "", None

    def refused(self, partition: TopicPartition, error: str) -> None:
        """The broker gives no records of this partition."""
        if (state := self._partitions.get(partition)) is not None:
            state.error = error

    def topic_refused(self, topic: str, error: str) -> None:
        """The broker gives no partitions of this topic."""
        self._topic_errors[topic] = error

    def polled(self, ends: Offsets) -> None:
        """A poll has come back with nothing, though it was ready to take anything."""
        now = self._clock()
        for partition, state in self._partitions.items():
            if ends.get(partition, 0) <= (state.position or 0):
                state.hungry_since = None
            elif state.hungry_since is None or now - self._polled_at > _POLL_GAP_S:
                state.hungry_since = now
        self._polled_at = now

    def group_failed(self, error: str) -> None:
        """The group's coordinator refuses, or does not answer."""
        self._group_error = error

    def in_group(self, member: bool) -> None:
        """Whether it is a member of its group, as it finds every second."""
        if member:
            self._joining_since, self._group_error = None, ""
        elif self._joining_since is None:
            self._joining_since = self._clock()

    def connection_failed(self, error: str) -> None:
        """A broker does not answer, or lets nobody in."""
        self._connection = error

    def connected(self) -> None:
        """A broker is connected, as the client finds every second."""
        self._connection = ""

    def failed_for_good(self, error: str) -> None:
        """The client will do nothing more."""
        self._fatal = error

    # what that means

    @property
    def fatal(self) -> str:
        return self._fatal

    @property
    def refusals(self) -> list[TopicPartition]:
        """Partitions whose last answer was an error."""
        return [partition for partition, state in self._partitions.items() if state.error]

    @property
    def member(self) -> bool:
        return bool(self._group) and self._joining_since is None

    @property
    def note(self) -> str:
        """What is worth knowing and keeps nobody from reading."""
        return (
            "" if self._group or not self._group_error else f"offsets are not left with the broker: {self._group_error}"
        )

    def trouble(self) -> str:
        """What keeps it from reading, by name and in the broker's words; '' where nothing does. The same words while
        it is the same: each change is a line in a log."""
        if self._fatal:
            return f"the client has failed for good: {self._fatal}"
        if self._connection:
            return self._connection
        if self._group and (why := self._not_a_member()):
            return why
        for topic, error in list(self._topic_errors.items()):
            return f"{topic}: {error}"
        return self._refused() or self._hungry()

    def _not_a_member(self) -> str:
        if self._group_error:
            return f"group {self._group}: {self._group_error}"
        since = self._joining_since
        if since is not None and self._clock() - since > PATIENCE_S:
            return f"group {self._group}: not a member for over {PATIENCE_S:g} s, without a word from its coordinator"
        return ""

    def _refused(self) -> str:
        errors: dict[str, list[str]] = {}
        for partition, state in sorted(self._partitions.items()):
            if state.error:
                errors.setdefault(state.error, []).append(_name(partition))
        return "; ".join(f"{', '.join(names)}: {error}" for error, names in errors.items())

    def _hungry(self) -> str:
        now = self._clock()
        if now - self._polled_at > _POLL_GAP_S:
            return ""  # nobody asks for records
        for partition, state in sorted(self._partitions.items()):
            since = state.hungry_since
            if since is not None and now - since > PATIENCE_S:
                at = state.position or 0
                return f"{_name(partition)}: no record for over {PATIENCE_S:g} s at offset {at}, and there are more"
        return ""


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}-{partition.partition}"
