"""The contract of a reader of the stream, over Kafka or in memory."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from consumers.records import OffsetRange, Offsets, Record, TopicPartition

OnPartitions = Callable[[Sequence[TopicPartition]], None]


class SourceStatus(NamedTuple):
    """Whether the stream can be read. `message` is for people: why not, or, if it can, a note or ''."""

    healthy: bool = True
    message: str = ""


class EventSource(Protocol):
    """Reads partitions, each in offset order. One thread calls it; others may only read `status` and `caught_up`.

    A source is used in one of two ways: `assign` (all of some topics, from known offsets) or `subscribe` (a share of
    them, as a member of a group). In both, records that expired before they were read are reported by `take_expired`,
    and reading goes on from the earliest record left.
    """

    def assign(self, topics: Mapping[str, Mapping[int, int]]) -> None:
        """Read every partition of `topics` (name → partition → offset to start at), besides those assigned before.

        A partition without an offset is read from its earliest record. Topics that do not exist are waited for, and
        partitions that appear later are read from offset 0. Does not block, and needs no broker.
        """

    def subscribe(
        self,
        topics: Sequence[str],
        on_assigned: OnPartitions | None = None,
        on_revoked: OnPartitions | None = None,
        on_lost: OnPartitions | None = None,
    ) -> None:
        """Share `topics` with the other members of the group, each partition from its committed offset.

        The callbacks run inside `poll` or `close`, with the partitions that came or went: `on_revoked` before another
        member may read them, so that offsets can still be committed; `on_lost` when it may already have begun to. A
        member must keep polling. What a callback raises comes out of `poll`.
        """

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """The next records, at most `max_records`: those at hand, else the first to come within `timeout_s` seconds.

        May return early and empty. Records of one partition are in offset order. Errors of the broker or the network
        are not raised: they show in `status`, and later polls return records again. Raises RuntimeError once closed.
        """

    def seek(self, offsets: Offsets) -> None:
        """Go on at these offsets; later polls return nothing from before them.

        Raises ValueError for a partition that is not being read.
        """

    def commit(self, offsets: Offsets, *, wait: bool = False) -> bool:
        """Commit `offsets` (to read next) for the group.

        With `wait` it may block for seconds, and True means that they are committed; without, that they were sent.
        False if the broker refuses, as it does to a member that has lost its partitions; that is not raised.
        """

    def take_expired(self) -> list[OffsetRange]:
        """The ranges lost to retention, found by polls since the last call; each is before the records of its poll."""

    def end_offsets(self) -> dict[TopicPartition, int]:
        """Per partition being read, its end: the offset of the next record to be appended, about a second old."""

    def positions(self) -> dict[TopicPartition, int]:
        """Per partition being read, its position: the offset to read next; every record before it has been returned.

        Partitions whose position is not known yet are missing. A partition that is read to its end is at its end, which
        may be beyond the last record and one: transaction markers and aborted records are not returned.
        """

    @property
    def caught_up(self) -> bool:
        """Whether everything that existed when it was assigned has been returned. A missing topic holds nothing."""

    @property
    def status(self) -> SourceStatus:
        """Whether the stream can be read.

        It is unhealthy within 10 s when no broker answers, when a broker denies reading or membership of the group, and
        when records exist that do not come.
        """

    def close(self) -> None:
        """Leave the group and free everything. May be called twice."""
