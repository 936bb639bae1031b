"""What a reader of the stream may rely on, whatever stands behind it."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from consumers.records import OffsetRange, Offsets, Record, TopicPartition

OnPartitions = Callable[[Sequence[TopicPartition]], None]


class SourceStatus(NamedTuple):
    """Whether the stream can be read now, and if not, why, for people; if so, what else is worth knowing, or ''."""

    healthy: bool = True
    message: str = ""


class EventSource(Protocol):
    """Partitions of a log, read in order. One thread calls it; only `status` and `caught_up` may be read from others.

    A source is used in one of two ways: `assign` (all of some topics, from known offsets) or `subscribe` (a share of
    them, as a member of a group). In both, records that expired before they were read are not skipped in silence: they
    are reported by `take_expired`, and reading goes on from the earliest record that is left.
    """

    def assign(self, topics: Mapping[str, Mapping[int, int]]) -> None:
        """Read every partition of `topics` (name → partition → offset to start at), besides those assigned before.

        A partition without an offset is read from its earliest record. Topics that do not exist are waited for, and
        partitions that appear later are read from offset 0. Does not block, needs no broker.
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

        May return early and empty. Records of one partition are in offset order. Raises no error of the broker or the
        network: those show in `status`, and polling goes on when they are over. Raises RuntimeError once closed.
        """

    def seek(self, offsets: Offsets) -> None:
        """Go on at these offsets, in partitions that are being read; later polls return nothing from before them."""

    def commit(self, offsets: Offsets, *, wait: bool = False) -> bool:
        """Leave `offsets` (to read next) with the broker under the group's name.

        With `wait` True is "they are there", and it may block for seconds; without, it is "they are on their way".
        Never raises for a broker's refusal: a member that has lost its partitions gets False.
        """

    def take_expired(self) -> list[OffsetRange]:
        """Stretches lost to retention, found by polls since the last call; each is before the records of its poll."""

    def end_offsets(self) -> dict[TopicPartition, int]:
        """Per partition being read, the offset of the next record to be appended, as last heard (about a second)."""

    def positions(self) -> dict[TopicPartition, int]:
        """Per partition being read, the offset to read next, where it is known: all before it has been returned.

        At the end of a partition it is the partition's end, also where that is beyond the last record and one: behind
        it there may be marks of transactions, or records that a transaction took back, which nobody is given.
        """

    @property
    def caught_up(self) -> bool:
        """Whether everything that was there when it was assigned has been returned. A missing topic holds nothing."""

    @property
    def status(self) -> SourceStatus:
        """Whether the stream can be read now.

        Of every client that it takes (one that reads, one that asks for the ends) and by its own account: denied
        records, a group that takes no member, records that are there and do not come are told within 10 s.
        """

    def close(self) -> None:
        """Leave the group and free everything. May be called twice."""
