"""Reads past micro-batches again, by their offset ranges, so that a version can be rebuilt from its events."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from consumers.batcher import assemble
from consumers.decode import DecodeRules, Outcome, Reason, Reject, decode
from consumers.micro_batch import MicroBatch
from consumers.read_ahead import ReadAhead
from consumers.records import OffsetRange, Record, TopicPartition
from consumers.source import EventSource

MOST_HELD = 100_000  # records read ahead, some 50 MB
_POLL_RECORDS = 4096
_POLL_S = 0.1
_NEVER_MS = 2**62  # tolerance of a `ts` in the future: the manifest lists those rejects, so the clock must not


class EventsGone(Exception):  # a state of the world, named for what happened
    """Events that a batch was made of are not in Kafka: expired, compacted away, or never there."""


class NoAnswer(Exception):
    """Kafka returned no record for `patience_s`."""


class RecordedStream:
    """Reads a sequence of batches in the order in which they were learned."""

    def __init__(
        self,
        source: EventSource,
        wanted: Iterable[OffsetRange],
        event_types: Mapping[str, float],
        items_topic: str,
        *,
        patience_s: float = 60.0,
        most_held: int = MOST_HELD,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`source`: not assigned yet, and used by nobody else. `wanted`: the ranges of all batches that will be read.

        `patience_s`: seconds without any record before `NoAnswer`. `most_held`: records in memory, besides one poll and
        the batch that is asked for.
        """
        self._source = source
        self._rules = DecodeRules(event_types, items_topic, future_tolerance_ms=_NEVER_MS)
        self._types = {name: number for number, name in enumerate(event_types)}
        self._patience_s, self._clock = patience_s, clock
        self._first: dict[TopicPartition, int] = {}  # the earliest offset left, of partitions with expired records
        starts: dict[str, dict[int, int]] = {}
        ends: dict[TopicPartition, int] = {}
        for topic, partition, start, end in wanted:
            of_topic, where = starts.setdefault(topic, {}), TopicPartition(topic, partition)
            of_topic[partition] = min(of_topic.get(partition, start), start)
            ends[where] = max(ends.get(where, end), end)
        self._ahead = ReadAhead(ends, most_held)
        if starts:
            source.assign(starts)

    @property
    def held(self) -> int:
        """Records in memory, read and not yet asked for."""
        return self._ahead.held

    def read(self, ranges: Sequence[OffsetRange], records: int, ahead: Iterable[tuple[str, int, int]]) -> MicroBatch:
        """The batch of these ranges, as BatchRecord has them: `records` in all, those of `ahead` rejected.

        To be called in the order in which batches were learned. Blocks while records come. Raises EventsGone, NoAnswer.
        """
        taken = {TopicPartition(r.topic, r.partition): self._take(r) for r in ranges}
        if (found := sum(map(len, taken.values()))) != records:
            raise EventsGone(f"of the {records} records in {_named(ranges)} {found} are left in Kafka")
        too_early = set(ahead)
        return assemble({p: self._decoded(of, too_early) for p, of in taken.items() if of}, ranges, self._types)

    def _take(self, wanted: OffsetRange) -> list[Record]:
        where, since = TopicPartition(wanted.topic, wanted.partition), self._clock()
        while self._has_come_to(where) < wanted.end and not self._is_at_end(where):
            if (let_go := self._ahead.let_go(where)) is not None:
                self._source.seek({where: max(let_go, wanted.start)})
                self._ahead.read_again(where)
            if self._poll(wanted):
                since = self._clock()
            elif self._clock() - since > self._patience_s:
                raise NoAnswer(
                    f"no record of {_named([wanted])} for {self._patience_s:g} s: {self._source.status.message}"
                )
        if wanted.start < (first := self._first.get(where, 0)):
            raise EventsGone(f"{_named([wanted])} is needed, and everything before {first} has expired")
        return self._ahead.take(wanted)

    def _has_come_to(self, where: TopicPartition) -> int:
        """The offset before which every record was read and, while it is wanted, is held."""
        let_go = self._ahead.let_go(where)
        return self._source.positions().get(where, -1) if let_go is None else let_go

    def _is_at_end(self, where: TopicPartition) -> bool:
        """Whether the partition is read to its end: the records missing from a range are then lost."""
        if self._ahead.let_go(where) is not None or not self._source.caught_up:
            return False
        position, end = self._source.positions().get(where), self._source.end_offsets().get(where)
        if position is None:
            return True  # there is no such partition
        return end is not None and position >= end  # None: not heard yet

    def _poll(self, wanted: OffsetRange) -> bool:
        records = self._source.poll(_POLL_RECORDS, _POLL_S)
        for gap in self._source.take_expired():
            self._first[TopicPartition(gap.topic, gap.partition)] = gap.end
        self._ahead.add(records, wanted)
        return bool(records)

    def _decoded(self, records: list[Record], too_early: set[tuple[str, int, int]]) -> list[tuple[Record, Outcome]]:
        outcomes = decode(records, self._rules, 0).outcomes
        return [
            (record, _rejected(record) if (record.topic, record.partition, record.offset) in too_early else outcome)
            for record, outcome in zip(records, outcomes, strict=True)
        ]


def _rejected(record: Record) -> Reject:
    return Reject(record, Reason.TS_IN_FUTURE, "was in the future when it was read first")


def _named(ranges: Sequence[OffsetRange]) -> str:
    return ", ".join(f"{r.topic}[{r.partition}] {r.start}..{r.end - 1}" for r in ranges)
