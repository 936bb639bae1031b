"""Whether a consumer can read, from what it receives. Pure: the clock is passed in.

Only this consumer's client counts. That another client of the process reaches the broker does not show that this one
may read, is a member of its group, or gets its records.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from consumers.records import Offsets, TopicPartition

PATIENCE_S = 8.0  # by then a group has formed, and an existing record has come; trouble is to show within 10 s
_POLL_GAP_S = 1.0  # a reader that did not poll for so long was not waiting for records


@dataclass(slots=True)
class _Partition:
    position: int | None = None  # the offset to read next; None until a record or the end has been seen
    error: str = ""  # the broker's last answer, if that was an error
    starved_since: float | None = None  # since when polls have been empty though there are records


class Reading:
    """What one consumer reads and receives; `trouble` says what keeps it from reading."""

    def __init__(self, clock: Callable[[], float], group: str = "") -> None:
        """`clock`: seconds. `group`: the consumer's group, or '' if it was assigned partitions."""
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
        """These partitions are being read, from `position` if that is known."""
        for partition in partitions:
            self._partitions[partition] = _Partition(position)
            self._topic_errors.pop(partition.topic, None)

    def give_up(self, partitions: Iterable[TopicPartition]) -> None:
        """These partitions are not being read."""
        for partition in partitions:
            self._partitions.pop(partition, None)

    @property
    def partitions(self) -> list[TopicPartition]:
        return sorted(self._partitions)

    def position(self, partition: TopicPartition) -> int | None:
        """The offset to read next, if it is known."""
        state = self._partitions.get(partition)
        return None if state is None else state.position

    def positions(self) -> dict[TopicPartition, int]:
        """Per partition with a known position, the offset to read next: everything before it has been received."""
        known = ((partition, state.position) for partition, state in list(self._partitions.items()))
        return {partition: position for partition, position in known if position is not None}

    def moved(self, partition: TopicPartition, position: int) -> None:
        """The partition is read on from `position`; its last error stands until something is received."""
        if (state := self._partitions.get(partition)) is not None:
            state.position, state.starved_since = position, None

    def anew(self, why: str) -> "Reading":
        """The Reading of the client that replaces a failed one; its trouble is `why` until it connects or joins."""
        successor = Reading(self._clock, self._group)
        if self._group:
            successor.group_failed(why)
        else:
            successor.connection_failed(why)
        return successor

    # what the client receives

    def received(self, partition: TopicPartition, position: int) -> None:
        """A record was received, or the end of the partition: everything before `position` has been received."""
        if (state := self._partitions.get(partition)) is not None:
            state.position, state.error, state.starved_since = max(position, state.position or 0), "", None

    def refused(self, partition: TopicPartition, error: str) -> None:
        """The broker gives no records of this partition."""
        if (state := self._partitions.get(partition)) is not None:
            state.error = error

    def topic_refused(self, topic: str, error: str) -> None:
        """The broker gives no partitions of this topic."""
        self._topic_errors[topic] = error

    def polled(self, ends: Offsets) -> None:
        """A poll has returned no record. `ends`: the partitions' ends, as last heard."""
        now = self._clock()
        for partition, state in self._partitions.items():
            if ends.get(partition, 0) <= (state.position or 0):
                state.starved_since = None
            elif state.starved_since is None or now - self._polled_at > _POLL_GAP_S:
                state.starved_since = now
        self._polled_at = now

    def group_failed(self, error: str) -> None:
        """The group's coordinator refuses the consumer, or does not answer."""
        self._group_error = error

    def in_group(self, member: bool) -> None:
        """Whether the consumer is a member of its group, by the client's statistics of every second."""
        if member:
            self._joining_since, self._group_error = None, ""
        elif self._joining_since is None:
            self._joining_since = self._clock()

    def connection_failed(self, error: str) -> None:
        """A broker does not answer, or refuses the connection."""
        self._connection = error

    def connected(self) -> None:
        """A broker is connected, by the client's statistics of every second."""
        self._connection = ""

    def failed_for_good(self, error: str) -> None:
        """The client has a fatal error: it must be replaced."""
        self._fatal = error

    # what follows

    @property
    def fatal(self) -> str:
        """The error that the client has failed with for good; '' if it has not."""
        return self._fatal

    @property
    def refusals(self) -> list[TopicPartition]:
        """The partitions for which the broker's last answer was an error."""
        return [partition for partition, state in self._partitions.items() if state.error]

    @property
    def member(self) -> bool:
        """Whether the consumer is a member of a group."""
        return bool(self._group) and self._joining_since is None

    @property
    def note(self) -> str:
        """A problem that does not keep the consumer from reading, for people; '' if there is none."""
        return (
            "" if self._group or not self._group_error else f"offsets are not left with the broker: {self._group_error}"
        )

    def trouble(self) -> str:
        """What keeps the consumer from reading, by name and in the broker's words; '' if nothing does.

        The text stays the same while the trouble does: each change becomes a line in the log.
        """
        if self._fatal:
            return f"the client has failed for good: {self._fatal}"
        if self._connection:
            return self._connection
        if self._group and (why := self._not_a_member()):
            return why
        for topic, error in list(self._topic_errors.items()):
            return f"{topic}: {error}"
        return self._refused() or self._starved()

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
                errors.setdefault(state.error, []).append(partition.name)
        return "; ".join(f"{', '.join(names)}: {error}" for error, names in errors.items())

    def _starved(self) -> str:
        now = self._clock()
        if now - self._polled_at > _POLL_GAP_S:
            return ""  # nobody asks for records
        for partition, state in sorted(self._partitions.items()):
            since = state.starved_since
            if since is not None and now - since > PATIENCE_S:
                at = state.position or 0
                return f"{partition.name}: no record for over {PATIENCE_S:g} s at offset {at}, and there are more"
        return ""
