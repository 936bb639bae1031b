"""A batch read again by its ranges is the batch that was: same columns, same order, same rejects."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.batcher import MicroBatcher
from consumers.decode import DecodeRules, decode
from consumers.kafka_source import KafkaSource
from consumers.memory_source import MemoryLog, MemorySource
from consumers.micro_batch import MicroBatch
from consumers.pipe import encode
from consumers.recorded import MOST_HELD, EventsGone, NoAnswer, RecordedStream
from consumers.records import OffsetRange, Offsets, Record, TopicPartition, next_offsets
from tests import brokers
from tests.consumers.samples import NOW_MS, event_json, item_json, streams

RULES = DecodeRules()
HOUR_MS = 3_600_000


def log_of(records: list[Record], marks: frozenset[int] = frozenset()) -> MemoryLog:
    """`marks`: after which of the records a transaction ends."""
    log = MemoryLog()
    for topic in ("events", "items"):
        log.create(topic, 2)
    for number, record in enumerate(records):
        while log.end(TopicPartition(record.topic, record.partition)) < record.offset:  # a gap: something not kept
            log.append(record.topic, b"gap", partition=record.partition)
        log.append(record.topic, record.value, record.key, record.partition, record.timestamp_ms)
        if number in marks:
            log.mark(record.topic, record.partition)
    return log


def first_reading(log: MemoryLog, max_events: int, polls: list[int], now_ms: int = NOW_MS) -> list[MicroBatch]:
    """Batches as a feeder cuts them, whatever the sizes of its polls."""
    source = MemorySource(log, "first")
    source.assign({"items": {}, "events": {}})
    batcher = MicroBatcher(max_events, 1.0, list(RULES.event_types), lambda: 0.0)
    batches: list[MicroBatch] = []
    sizes = iter([size for size in polls if size])
    while True:
        records = source.poll(next(sizes, 50), 0)
        batches += batcher.add(decode(records, RULES, now_ms))
        batcher.pass_over(source.positions())
        if not records:
            break
    last = batcher.flush()
    return batches + ([last] if last is not None else [])


def read_again(
    log: MemoryLog, batches: list[MicroBatch], patience_s: float = 1.0, most_held: int = MOST_HELD
) -> list[MicroBatch]:
    stream = RecordedStream(
        MemorySource(log, "again"),
        [r for batch in batches for r in batch.ranges],
        RULES.event_types,
        "items",
        patience_s=patience_s,
        most_held=most_held,
    )
    return [stream.read(batch.ranges, batch.records, batch.ahead) for batch in batches]


def content(batch: MicroBatch) -> bytes:
    return encode(replace(batch, end_offsets={}, expired={}))


@settings(max_examples=60, deadline=None)
@given(
    streams(),
    st.integers(1, 7),
    st.lists(st.integers(0, 9)),
    st.integers(0, 20),
    st.integers(0, 30),
    st.frozensets(st.integers(0, 30)),
)
def test_batches_are_read_again_bit_for_bit(
    records: list[Record],
    max_events: int,
    polls: list[int],
    from_batch: int,
    most_held: int,
    marks: frozenset[int],
) -> None:
    log = log_of(records, marks)
    batches = first_reading(log, max_events, polls)
    reached = next_offsets(r for batch in batches for r in batch.ranges)
    assert reached == {p: log.end(p) for p in log.records if log.end(p)}
    batches = batches[from_batch:]
    again = read_again(log, batches, most_held=most_held)
    assert [content(batch) for batch in again] == [content(batch) for batch in batches]


@pytest.mark.parametrize("first", [0, 1], ids=["few of the first", "few of the second"])
def test_of_a_log_that_is_wanted_slowly_little_is_held(first: int) -> None:
    """Of one partition a batch has one record and of the other ten; the source gives whatever comes first."""
    log, n = MemoryLog(), 400
    log.create("events", 2)
    few, many = first, 1 - first
    for partition, records in ((few, n), (many, 10 * n)):
        for _ in range(records):
            log.append("events", event_json(user_id=f"u{partition}"), b"u%d" % partition, partition, NOW_MS)
    wanted = [
        [OffsetRange("events", few, at, at + 1), OffsetRange("events", many, 10 * at, 10 * at + 10)] for at in range(n)
    ]

    class Seeking(MemorySource):
        seeks = 0

        def poll(self, max_records: int, timeout_s: float) -> list[Record]:
            return super().poll(min(max_records, 20), timeout_s)

        def seek(self, offsets: Offsets) -> None:
            self.seeks += 1
            super().seek(offsets)

    source = Seeking(log, "again")
    stream = RecordedStream(source, [r for ranges in wanted for r in ranges], RULES.event_types, "items", most_held=100)
    held = []
    for ranges in wanted:
        assert len(stream.read(sorted(ranges), 11, [])) == 11
        held.append(stream.held)
    assert max(held) <= 100
    assert source.seeks <= 4 * 11 * n / 50  # each brings half of what may be held, or more


def test_what_was_in_the_future_then_is_still_rejected_when_its_time_has_come() -> None:
    log = MemoryLog()
    log.create("events", 1)
    for hours in (0, 30, 1):
        log.append("events", event_json(ts=NOW_MS + hours * HOUR_MS), b"u1", 0, NOW_MS)
    (batch,) = first_reading(log, 10, [])
    assert batch.ahead == (("events", 0, 1),)
    (again,) = read_again(log, [batch])
    assert content(again) == content(batch)
    assert len(again) == 2
    (later,) = first_reading(log, 10, [], NOW_MS + 30 * HOUR_MS)  # the clock alone would have let it in
    assert len(later) == 3


def test_expired_events_are_named() -> None:
    log = MemoryLog()
    log.create("events", 1)
    for _ in range(10):
        log.append("events", event_json(), b"u1", 0, NOW_MS)
    batches = first_reading(log, 5, [])
    log.expire(TopicPartition("events", 0), 7)
    with pytest.raises(EventsGone, match=r"events\[0\] 0\.\.4 is needed, and everything before 7 has expired"):
        read_again(log, batches)
    with pytest.raises(EventsGone, match=r"events\[0\] 5\.\.9"):
        read_again(log, batches[1:])


def test_compacted_records_are_missed() -> None:
    log = MemoryLog()
    log.create("items", 1)
    for n in range(6):
        log.append("items", item_json(item_id=f"i{n % 3}"), f"i{n % 3}".encode(), 0, NOW_MS)
    batches = first_reading(log, 10, [])
    kept = log.records[TopicPartition("items", 0)]
    kept[:] = [record for record in kept if record.offset not in (1, 2)]
    with pytest.raises(EventsGone, match=r"of the 6 records in items\[0\] 0\.\.5 4 are left"):
        read_again(log, batches)


def test_a_stream_that_gives_nothing_is_given_up() -> None:
    log = MemoryLog()
    log.create("events", 1)
    log.append("events", event_json(), b"u1", 0, NOW_MS)

    class Silent(MemorySource):
        caught_up = False

        def poll(self, max_records: int, timeout_s: float) -> list[Record]:
            return []

    stream = RecordedStream(
        Silent(log, "again"), [OffsetRange("events", 0, 0, 1)], RULES.event_types, "items", patience_s=0.01
    )
    with pytest.raises(NoAnswer, match=r"events\[0\] 0\.\.0"):
        stream.read([OffsetRange("events", 0, 0, 1)], 1, [])


def test_where_the_end_is_not_known_yet_it_has_not_been_reached() -> None:
    log = MemoryLog()
    log.create("events", 1)
    for n in range(6):
        log.append("events", event_json(ts=n), b"u1", 0, NOW_MS)

    class Unheard(MemorySource):
        caught_up = True  # it was read to its end before, and then sought back

        def poll(self, max_records: int, timeout_s: float) -> list[Record]:
            return super().poll(2, timeout_s)

        def end_offsets(self) -> dict[TopicPartition, int]:
            return {}

    wanted = OffsetRange("events", 0, 0, 6)
    stream = RecordedStream(Unheard(log, "again"), [wanted], RULES.event_types, "items", patience_s=1.0)
    assert stream.read([wanted], 6, []).ts.tolist() == list(range(6))


def test_from_kafka_too_what_was_let_go_is_read_again() -> None:
    bootstrap, topic, n = brokers.mock_cluster(), brokers.unique_topic("events"), 60
    brokers.create_topic(bootstrap, topic)
    for partition, records in ((0, n), (1, 5 * n)):
        for number in range(records):
            value = event_json(user_id=f"u{partition}", ts=number)
            brokers.produce(bootstrap, topic, value, key=b"u%d" % partition, partition=partition)
    brokers.flush(bootstrap)
    wanted = [[OffsetRange(topic, 0, at, at + 1), OffsetRange(topic, 1, 5 * at, 5 * at + 5)] for at in range(n)]
    source = KafkaSource(bootstrap, "again")
    try:
        flat = [r for ranges in wanted for r in ranges]
        stream = RecordedStream(source, flat, RULES.event_types, "items", most_held=40)
        seen: list[int] = []
        for ranges in wanted:
            batch = stream.read(ranges, 6, [])
            assert stream.held <= 40
            seen += batch.ts.tolist()
        assert seen == [ts for at in range(n) for ts in (at, *range(5 * at, 5 * at + 5))]
    finally:
        source.close()
