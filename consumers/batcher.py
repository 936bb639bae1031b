"""From decoded records to micro-batches of columns, cut by size or by time."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from consumers.decode import Decoded, Reject
from consumers.events import Interaction
from consumers.micro_batch import ItemChange, MicroBatch
from consumers.records import OffsetRange, Offsets, Record, TopicPartition


def event_digest(event: Interaction, record: Record) -> bytes:
    """Eight bytes that name an event: from its `event_id`, else from where its record stands.

    BLAKE2b, the same in every process and on every machine. No id in UTF-8 holds the byte FF, so the two kinds of name
    cannot meet. Read as a little-endian int64 they are `MicroBatch.event_key`.
    """
    event_id = event.event_id
    if event_id is not None:
        return blake2b(event_id.encode(), digest_size=8).digest()
    place = f"{record.topic}-{record.partition}-{record.offset}".encode()
    return blake2b(b"\xff" + place, digest_size=8).digest()


@dataclass(slots=True)
class _Open:
    """The batch being filled."""

    since: float  # the clock at its first record
    users: dict[str, int] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)
    user: list[int] = field(default_factory=list)
    item: list[int] = field(default_factory=list)
    type: list[int] = field(default_factory=list)
    ts: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    kafka_ts: list[int] = field(default_factory=list)
    catalogue: list[ItemChange] = field(default_factory=list)
    starts: dict[TopicPartition, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    misrouted: int = 0
    expired: dict[TopicPartition, int] = field(default_factory=dict)


class MicroBatcher:
    """Cuts the stream into micro-batches of `max_events` accepted events and catalogue changes, or of `max_wait_s`.

    Laws: concatenated, the batches are the stream, in its order; a partition's ranges follow one another without a gap,
    but for records that expired (`skip`); next offsets never go back. A batch of nothing but rejects comes out too,
    because offsets must move.
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
        """Where reading begins, so that the first ranges begin there too (at the first record read, if not told)."""
        self._positions.update(offsets)

    def note_ends(self, ends: Offsets) -> None:
        """The partitions' ends as last heard: batches from now on carry them."""
        self._ends = dict(ends)

    def add(self, decoded: Decoded) -> list[MicroBatch]:
        """Take decoded records; returns the batches that are full by them, in order."""
        full: list[MicroBatch] = []
        open_ = self._opened()
        room = self._max_events - len(open_.user) - len(open_.catalogue)
        type_index, positions = self._type_index, self._positions
        for record, outcome in zip(decoded.records, decoded.outcomes, strict=True):
            partition = TopicPartition(record.topic, record.partition)
            if partition not in open_.starts:
                open_.starts[partition] = positions.get(partition, record.offset)
            positions[partition] = record.offset + 1
            if isinstance(outcome, Reject):
                reason = outcome.code.value
                open_.rejected[reason] = open_.rejected.get(reason, 0) + 1
                continue
            if isinstance(outcome, ItemChange):
                open_.catalogue.append(outcome)
            else:
                user_id, item_id, value = outcome.user_id, outcome.item_id, outcome.value
                users, items = open_.users, open_.items
                open_.user.append(users.setdefault(user_id, len(users)))
                open_.item.append(-1 if item_id is None else items.setdefault(item_id, len(items)))
                open_.type.append(type_index[outcome.type])
                open_.ts.append(outcome.ts)
                open_.value.append(math.nan if value is None else value)
                open_.digests.append(event_digest(outcome, record))
                open_.kafka_ts.append(record.timestamp_ms)
                if record.key != user_id.encode():
                    open_.misrouted += 1
            room -= 1
            if room == 0:
                full.append(self._cut())
                open_ = self._opened()
                room = self._max_events
        if not open_.starts:
            self._open = None
        return full

    def skip(self, gaps: Iterable[OffsetRange]) -> list[MicroBatch]:
        """Take note of records that expired unread; they stand between what was added and what will be.

        Returns the batch that was open, if any: a batch has one range a partition, and the next begins after the gap.
        """
        gaps = list(gaps)
        cut = [batch for batch in [self.flush() if gaps else None] if batch is not None]
        for gap in gaps:
            open_ = self._opened()
            partition = TopicPartition(gap.topic, gap.partition)
            open_.expired[partition] = open_.expired.get(partition, 0) + gap.end - gap.start
            open_.starts[partition] = self._positions[partition] = gap.end
        return cut

    def wait_s(self) -> float | None:
        """Seconds until the open batch is due; None where none is open."""
        if self._open is None:
            return None
        return max(0.0, self._open.since + self._max_wait_s - self._clock())

    def due(self) -> MicroBatch | None:
        """The open batch, if its time has come."""
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
        return MicroBatch(
            users=tuple(open_.users),
            items=tuple(open_.items),
            user=np.array(open_.user, dtype=np.int32),
            item=np.array(open_.item, dtype=np.int32),
            type=np.array(open_.type, dtype=np.int16),
            ts=np.array(open_.ts, dtype=np.int64),
            value=np.array(open_.value, dtype=np.float64),
            event_key=np.frombuffer(b"".join(open_.digests), dtype="<i8").astype(np.int64),
            kafka_ts=np.array(open_.kafka_ts, dtype=np.int64),
            catalogue=tuple(open_.catalogue),
            ranges=tuple(OffsetRange(*p, start, self._positions[p]) for p, start in open_.starts.items()),
            rejected=open_.rejected,
            misrouted=open_.misrouted,
            expired=open_.expired,
            end_offsets=dict(self._ends),
        )
