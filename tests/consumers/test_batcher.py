"""Batching then concatenating gives each partition back; offsets are contiguous and never go back."""

import math
from collections import Counter
from collections.abc import Callable
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.batcher import MicroBatcher, event_digest
from consumers.decode import DecodeRules, Reject, decode
from consumers.events import Interaction
from consumers.micro_batch import ItemChange, MicroBatch
from consumers.records import OffsetRange, Record, TopicPartition
from tests.consumers.samples import NOW_MS, event_json, event_record, item_json, item_record, streams

RULES = DecodeRules()
TYPES = list(RULES.event_types)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def batcher(max_events: int = 4, max_wait_s: float = 0.05, clock: Callable[[], float] | None = None) -> MicroBatcher:
    return MicroBatcher(max_events, max_wait_s, TYPES, clock or Clock())


def batches_of(records: list[Record], max_events: int, polls: list[int]) -> list[MicroBatch]:
    cutter = batcher(max_events)
    batches, rest = [], list(records)
    for size in [*polls, len(records)]:
        batches += cutter.add(decode(rest[:size], RULES, NOW_MS))
        rest = rest[size:]
    last = cutter.flush()
    return batches + ([last] if last is not None else [])


@settings(max_examples=40, deadline=None)
@given(streams(), st.integers(1, 7), st.lists(st.integers(0, 9)))
def test_concatenated_batches_are_the_stream(records: list[Record], max_events: int, polls: list[int]) -> None:
    """Each partition in its order; within a batch partition after partition, whatever the order of arrival."""
    batches = batches_of(records, max_events, polls)
    outcomes = dict(zip(map(_place, records), decode(records, RULES, NOW_MS).outcomes, strict=True))
    events, changes = 0, 0
    for batch in batches:
        assert list(batch.ranges) == sorted(batch.ranges)
        held = [r for r in sorted(records, key=_place) if _within(r, batch)]
        assert batch.records == len(held)
        accepted = [(r, o) for r in held if isinstance(o := outcomes[_place(r)], Interaction)]
        assert len(batch) == len(accepted)
        for n, (record, event) in enumerate(accepted):
            assert batch.users[batch.user[n]] == event.user_id
            assert (batch.items[batch.item[n]] if batch.item[n] >= 0 else None) == event.item_id
            assert TYPES[batch.type[n]] == event.type
            assert batch.ts[n] == event.ts
            assert batch.value[n] == event.value or (event.value is None and math.isnan(batch.value[n]))
            assert batch.event_key[n] == np.frombuffer(event_digest(event, record), "<i8")[0]
            assert batch.kafka_ts[n] == record.timestamp_ms
        catalogue = [o for r in held if isinstance(o := outcomes[_place(r)], ItemChange)]
        assert list(batch.catalogue) == catalogue
        rejected = [o.code for r in held if isinstance(o := outcomes[_place(r)], Reject)]
        assert batch.rejected == dict(Counter(rejected))
        assert batch.misrouted == sum(r.key != e.user_id.encode() for r, e in accepted)
        events, changes = events + len(accepted), changes + len(batch.catalogue)
    assert events == sum(isinstance(o, Interaction) for o in outcomes.values())
    assert changes == sum(isinstance(o, ItemChange) for o in outcomes.values())


users = st.sampled_from(["u1", "u2", "é", "a\x00b"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(users, st.booleans())), st.integers(1, 7), st.lists(st.integers(0, 9)))
def test_concatenated_batches_keep_the_order_of_each_key(
    written: list[tuple[str, bool]], max_events: int, polls: list[int]
) -> None:
    """Producers give a key one partition; `ts` is here the order in which they wrote, and not every record fits."""
    ends, records = [0, 0, 0], []
    for n, (user, fits) in enumerate(written):
        partition = crc32(user.encode()) % len(ends)
        value = event_json(user_id=user, ts=n) if fits else b"junk"
        records.append(event_record(value, user.encode(), partition, ends[partition]))
        ends[partition] += 1
    read: dict[str, list[int]] = {}
    for batch in batches_of(records, max_events, polls):
        for user, ts in zip(batch.user, batch.ts, strict=True):
            read.setdefault(batch.users[user], []).append(int(ts))
    sent: dict[str, list[int]] = {}
    for n, (user, fits) in enumerate(written):
        if fits:
            sent.setdefault(user, []).append(n)
    assert read == sent


def _place(record: Record) -> tuple[str, int, int]:
    return record.topic, record.partition, record.offset


def _within(record: Record, batch: MicroBatch) -> bool:
    return any((record.topic, record.partition) == r[:2] and r.start <= record.offset < r.end for r in batch.ranges)


@settings(max_examples=40, deadline=None)
@given(streams(), st.integers(1, 7), st.lists(st.integers(0, 9)))
def test_ranges_are_contiguous_and_cover_every_record(records: list[Record], max_events: int, polls: list[int]) -> None:
    positions: dict[TopicPartition, int] = {}
    for batch in batches_of(records, max_events, polls):
        partitions = [(r.topic, r.partition) for r in batch.ranges]
        assert len(set(partitions)) == len(partitions)
        for r in batch.ranges:
            partition = TopicPartition(r.topic, r.partition)
            assert r.start == positions.get(partition, r.start)
            assert r.start < r.end
            positions[partition] = r.end
    assert positions == {TopicPartition(r.topic, r.partition): r.offset + 1 for r in records}


@settings(max_examples=40, deadline=None)
@given(streams(), st.integers(1, 7), st.lists(st.integers(0, 9)))
def test_all_but_the_last_batch_are_exactly_full(records: list[Record], max_events: int, polls: list[int]) -> None:
    batches = batches_of(records, max_events, polls)
    sizes = [len(batch) + len(batch.catalogue) for batch in batches]
    assert all(size == max_events for size in sizes[:-1])
    assert all(size <= max_events for size in sizes)
    for batch in batches:
        assert len(set(batch.users)) == len(batch.users)
        assert list(dict.fromkeys(batch.user.tolist())) == list(range(len(batch.users)))  # in order of appearance


def test_a_batch_is_due_by_time_since_its_first_record_though_nothing_follows() -> None:
    clock = Clock()
    cutter = batcher(clock=clock)
    assert cutter.wait_s() is None
    assert cutter.due() is None
    cutter.add(decode([event_record(event_json())], RULES, NOW_MS))
    clock.now += 0.03
    assert cutter.wait_s() == pytest.approx(0.02)
    assert cutter.due() is None
    cutter.add(decode([event_record(event_json(), offset=1)], RULES, NOW_MS))
    clock.now += 0.02
    batch = cutter.due()
    assert batch is not None
    assert len(batch) == 2
    assert cutter.due() is None


def test_nothing_added_opens_no_batch() -> None:
    cutter = batcher()
    assert cutter.add(decode([], RULES, NOW_MS)) == []
    assert cutter.flush() is None


def test_a_batch_of_nothing_but_rejects_moves_the_offsets() -> None:
    cutter = batcher(2)
    assert cutter.add(decode([event_record(b"junk", offset=n) for n in range(10)], RULES, NOW_MS)) == []
    batch = cutter.flush()
    assert batch is not None
    assert len(batch) == 0
    assert batch.ranges == (OffsetRange("events", 0, 0, 10),)
    assert batch.rejected == {"not_json": 10}


def test_ranges_begin_where_reading_began_and_cover_compacted_offsets() -> None:
    cutter = batcher()
    cutter.start_at({TopicPartition("items", 0): 3})
    cutter.add(decode([item_record(item_json(), offset=7), item_record(None, offset=9)], RULES, NOW_MS))
    batch = cutter.flush()
    assert batch is not None
    assert batch.ranges == (OffsetRange("items", 0, 3, 10),)
    assert [c.deleted for c in batch.catalogue] == [False, True]


def test_expired_records_are_counted_and_the_next_range_begins_after_them() -> None:
    cutter = batcher()
    cutter.add(decode([event_record(event_json())], RULES, NOW_MS))
    (before,) = cutter.skip([OffsetRange("events", 0, 1, 50)])
    assert before.ranges == (OffsetRange("events", 0, 0, 1),)
    cutter.add(decode([event_record(event_json(), offset=50)], RULES, NOW_MS))
    after = cutter.flush()
    assert after is not None
    assert after.expired == {TopicPartition("events", 0): 49}
    assert after.ranges == (OffsetRange("events", 0, 50, 51),)


def test_no_gap_cuts_no_batch() -> None:
    cutter = batcher()
    cutter.add(decode([event_record(event_json())], RULES, NOW_MS))
    assert cutter.skip([]) == []
    assert cutter.wait_s() is not None


def test_an_empty_range_says_that_everything_up_to_there_had_expired() -> None:
    cutter = batcher()
    cutter.skip([OffsetRange("events", 0, 0, 50)])
    batch = cutter.flush()
    assert batch is not None
    assert batch.ranges == (OffsetRange("events", 0, 50, 50),)
    assert batch.expired == {TopicPartition("events", 0): 50}


def test_event_keys_are_pinned() -> None:
    """They are kept in checkpoints and histories: another hash would take redelivered events for new ones."""
    event = Interaction(user_id="u", item_id="i", type="view", ts=0, event_id="e1")
    assert event_digest(event, event_record(b"")).hex() == "1b5d5e51f54f0f04"
    assert (
        event_digest(event.model_copy(update={"event_id": None}), event_record(b"", offset=7)).hex()
        == "82a422dafde60869"
    )


def test_an_event_id_that_looks_like_a_place_is_another_name() -> None:
    named = Interaction(user_id="u", item_id="i", type="view", ts=0, event_id="events-0-7")
    unnamed = named.model_copy(update={"event_id": None})
    record = event_record(b"", offset=7)
    assert event_digest(named, record) != event_digest(unnamed, record)


def test_batches_carry_the_ends_last_heard_of() -> None:
    cutter = batcher(1)
    cutter.note_ends({TopicPartition("events", 0): 9})
    (batch,) = cutter.add(decode([event_record(event_json())], RULES, NOW_MS))
    assert batch.end_offsets == {TopicPartition("events", 0): 9}


def test_what_no_reader_gets_belongs_to_the_batch_before_it_or_is_one_of_its_own() -> None:
    clock = Clock()
    cut = batcher(clock=clock)
    first, second = TopicPartition("events", 0), TopicPartition("events", 1)
    cut.start_at({first: 3})
    cut.pass_over({first: 3, second: 0})
    assert cut.wait_s() is None
    cut.add(decode([event_record(event_json(), offset=3)], RULES, NOW_MS))
    cut.pass_over({first: 5, second: 0})  # the mark of a transaction at 4
    batch = cut.flush()
    assert batch is not None
    assert (batch.ranges, batch.records) == ((OffsetRange("events", 0, 3, 5),), 1)
    cut.pass_over({first: 5, second: 0})
    assert cut.wait_s() is None
    cut.pass_over({first: 7, second: 4})  # transactions that were taken back
    clock.now += 0.05
    batch = cut.due()
    assert batch is not None
    assert (batch.ranges, len(batch), batch.records) == (
        (OffsetRange("events", 0, 5, 7), OffsetRange("events", 1, 0, 4)),
        0,
        0,
    )
    cut.pass_over({first: 6, second: 2})  # heard late
    assert cut.flush() is None
