"""From decoded records to micro-batches of columns, cut by size or by time."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np

from consumers.decode import Decoded, Outcome, Reason, Reject
from consumers.events import Interaction
from consumers.micro_batch import ItemChange, MicroBatch
from consumers.records import OffsetRange, Offsets, Record, TopicPartition


def event_digest(event: Interaction, record: Record) -> bytes:
    """Eight bytes that identify an event: a hash of its `event_id`, or of topic, partition and offset without one.

    BLAKE2b gives the same bytes in every process and on every machine. The byte FF before the second kind, which no
    UTF-8 text holds, keeps the two kinds apart. Read as a little-endian int64 they are `MicroBatch.event_key`.
    """
    if event.event_id is not None:
        return id_digest(event.event_id)
    place = f"{record.topic}-{record.partition}-{record.offset}".encode()
    return blake2b(b"\xff" + place, digest_size=8).digest()


def id_digest(event_id: str) -> bytes:
    """The eight bytes that identify an event with this `event_id`."""
    return blake2b(event_id.encode(), digest_size=8).digest()


Taken = Mapping[TopicPartition, Sequence[tuple[Record, Outcome]]]
"""Per partition, records in offset order, each with its outcome."""


def assemble(taken: Taken, ranges: Iterable[OffsetRange], type_index: Mapping[str, int]) -> MicroBatch:
    """The micro-batch of these records: partition after partition, by topic and number, each in offset order.

    Weights depend on the order of events, and how partitions interleave depends on the network. In this fixed order
    the offset ranges alone determine a batch: reading them again gives the same batch, bit for bit.
    """
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user: list[int] = []
    item: list[int] = []
    kind: list[int] = []
    ts: list[int] = []
    value: list[float] = []
    digests: list[bytes] = []
    kafka_ts: list[int] = []
    catalogue: list[ItemChange] = []
    rejected: dict[str, int] = {}
    ahead: list[tuple[str, int, int]] = []
    misrouted = 0
    for partition in sorted(taken):
        for record, outcome in taken[partition]:
            if isinstance(outcome, Reject):
                rejected[outcome.code.value] = rejected.get(outcome.code.value, 0) + 1
                if outcome.code is Reason.TS_IN_FUTURE:
                    ahead.append((record.topic, record.partition, record.offset))
            elif isinstance(outcome, ItemChange):
                catalogue.append(outcome)
            else:
                user_id, item_id, number = outcome.user_id, outcome.item_id, outcome.value
                user.append(users.setdefault(user_id, len(users)))
                item.append(-1 if item_id is None else items.setdefault(item_id, len(items)))
                kind.append(type_index[outcome.type])
                ts.append(outcome.ts)
                value.append(math.nan if number is None else number)
                digests.append(event_digest(outcome, record))
                kafka_ts.append(record.timestamp_ms)
                if record.key != user_id.encode():
                    misrouted += 1
    return MicroBatch(
        users=tuple(users),
        items=tuple(items),
        user=np.array(user, dtype=np.int32),
        item=np.array(item, dtype=np.int32),
        type=np.array(kind, dtype=np.int16),
        ts=np.array(ts, dtype=np.int64),
        value=np.array(value, dtype=np.float64),
        event_key=np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64),
        kafka_ts=np.array(kafka_ts, dtype=np.int64),
        catalogue=tuple(catalogue),
        ranges=tuple(sorted(ranges)),
        records=sum(map(len, taken.values())),
        rejected=rejected,
        ahead=tuple(ahead),
        misrouted=misrouted,
    )


@dataclass(slots=True)
class _Open:
    """The batch being filled."""

    since: float  # the clock at its first record
    taken: dict[TopicPartition, list[tuple[Record, Outcome]]] = field(default_factory=dict)
    accepted: int = 0
    starts: dict[TopicPartition, int] = field(default_factory=dict)
    expired: dict[TopicPartition, int] = field(default_factory=dict)


class MicroBatcher:
    """Cuts the stream into micro-batches of `max_events` accepted events and catalogue changes, or of `max_wait_s`.

    Laws: concatenated, the batches are the stream, each partition in offset order. A partition's ranges follow one
    another without a gap, except for records that expired (`skip`). Positions never go back. A batch may hold only
    rejects, or no record at all (`pass_over`): its offsets still count as read.
    """

    def __init__(
        self, max_events: int, max_wait_s: float, event_types: Sequence[str], clock: Callable[[], float]
    ) -> None:
        """`clock` counts seconds and never goes back; `event_types` number `MicroBatch.type`."""
        if max_events < 1 or max_wait_s < 0:
            raise ValueError("a batch holds at least one event and waits at least no time")
        self._max_events = max_events
        self._max_wait_s = max_wait_s
        self._type_index = {name: n for n, name in enumerate(event_types)}
        self._clock = clock
        self._positions: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._open: _Open | None = None

    def start_at(self, offsets: Offsets) -> None:
        """Where reading begins: the first ranges begin there. Other partitions begin at the first record read."""
        self._positions.update(offsets)

    def note_ends(self, ends: Offsets) -> None:
        """The partitions' ends as last heard; the batches cut after this call carry them."""
        self._ends = dict(ends)

    def add(self, decoded: Decoded) -> list[MicroBatch]:
        """Take decoded records; returns the batches that they filled, in order."""
        full: list[MicroBatch] = []
        open_ = self._opened()
        positions = self._positions
        for record, outcome in zip(decoded.records, decoded.outcomes, strict=True):
            partition = TopicPartition(record.topic, record.partition)
            if (taken := open_.taken.get(partition)) is None:
                taken = open_.taken[partition] = []
                open_.starts.setdefault(partition, positions.get(partition, record.offset))
            taken.append((record, outcome))
            positions[partition] = record.offset + 1
            if not isinstance(outcome, Reject):
                open_.accepted += 1
                if open_.accepted == self._max_events:
                    full.append(self._cut())
                    open_ = self._opened()
        if not open_.starts:
            self._open = None
        return full

    def skip(self, gaps: Iterable[OffsetRange]) -> list[MicroBatch]:
        """Note records that expired unread, between the records added so far and those added next.

        Returns the open batch, if any: a batch has one range a partition, so the next range begins in the next batch.
        """
        gaps = list(gaps)
        cut = [batch for batch in [self.flush() if gaps else None] if batch is not None]
        for gap in gaps:
            open_ = self._opened()
            partition = TopicPartition(gap.topic, gap.partition)
            open_.expired[partition] = open_.expired.get(partition, 0) + gap.end - gap.start
            open_.starts[partition] = self._positions[partition] = gap.end
        return cut

    def pass_over(self, positions: Offsets) -> None:
        """Note the positions, when every record before them was added.

        Offsets between a partition's last record and its position hold nothing for readers: transaction markers,
        aborted or compacted records. They go into the open batch; without them a topic of transactions would never be
        read to its end.
        """
        for partition, position in positions.items():
            known = self._positions.get(partition)
            if known is None and position == 0:
                self._positions[partition] = 0
            elif known is None or position > known:
                self._opened().starts.setdefault(partition, position if known is None else known)
                self._positions[partition] = position

    def wait_s(self) -> float | None:
        """Seconds until the open batch is due; None where none is open."""
        if self._open is None:
            return None
        return max(0.0, self._open.since + self._max_wait_s - self._clock())

    def due(self) -> MicroBatch | None:
        """The open batch, if it has waited `max_wait_s`."""
        return self.flush() if self.wait_s() == 0.0 else None

    def flush(self) -> MicroBatch | None:
        """The open batch, full or not."""
        return None if self._open is None else self._cut()

    def _opened(self) -> _Open:
        if self._open is None:
            self._open = _Open(since=self._clock())
        return self._open

    def _cut(self) -> MicroBatch:
        open_ = self._opened()
        self._open = None
        ranges = [
            OffsetRange(*partition, start, self._positions[partition]) for partition, start in open_.starts.items()
        ]
        return replace(
            assemble(open_.taken, ranges, self._type_index), expired=open_.expired, end_offsets=dict(self._ends)
        )
