import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.records import Record, TopicPartition
from service.scoring.read_offsets import ReadOffsets

HERE, THERE = TopicPartition("events", 0), TopicPartition("events", 1)


def record(where: TopicPartition, offset: int, ms: int = 0) -> Record:
    return Record(where.topic, where.partition, offset, ms, None, None)


@pytest.fixture
def offsets() -> ReadOffsets:
    made = ReadOffsets(5.0)
    made.assign([THERE, HERE])
    return made


def test_the_next_offset_follows_the_last_record(offsets: ReadOffsets) -> None:
    assert offsets.assigned == [HERE, THERE]
    assert offsets.next == {}
    offsets.read([record(HERE, 3), record(THERE, 0), record(HERE, 7)])
    assert offsets.next == {HERE: 8, THERE: 1}


def test_only_what_was_stored_for_so_long_may_be_committed_and_once(offsets: ReadOffsets) -> None:
    offsets.read([record(HERE, 0)])
    assert offsets.committable(1e9) == {}  # it is not stored yet
    offsets.stored(10.0)
    offsets.read([record(HERE, 1), record(THERE, 0)])
    offsets.stored(10.5)
    offsets.read([record(HERE, 2)])
    assert offsets.committable(14.9) == {}
    assert offsets.committable(15.0) == {HERE: 1}
    assert offsets.committable(15.4) == {}
    assert offsets.committable(20.0) == {HERE: 2, THERE: 1}
    assert offsets.committable(1e9) == {}


def test_of_several_that_are_old_enough_the_latest_counts(offsets: ReadOffsets) -> None:
    for offset in range(3):
        offsets.read([record(HERE, offset)])
        offsets.stored(float(offset))
    assert offsets.committable(6.0) == {HERE: 2}


def test_a_lost_partition_is_never_committed_again_nor_after_it_came_back(offsets: ReadOffsets) -> None:
    offsets.read([record(HERE, 3), record(THERE, 3)])
    offsets.stored(0.0)
    offsets.lose([HERE, TopicPartition("events", 9)])
    offsets.read([record(HERE, 4)])  # polled before it was lost
    offsets.stored(1.0)
    assert (offsets.next, offsets.assigned) == ({THERE: 4}, [THERE])
    offsets.assign([HERE])
    assert offsets.committable(6.0) == {THERE: 4}
    offsets.read([record(HERE, 9)])
    offsets.stored(7.0)
    assert offsets.committable(12.0) == {HERE: 10, THERE: 4}


def test_of_partitions_made_anew_nothing_has_been_read_and_that_may_be_committed_at_once(offsets: ReadOffsets) -> None:
    offsets.read([record(HERE, 3)])
    offsets.stored(0.0)
    offsets.begin_anew()
    assert offsets.next == {HERE: 0, THERE: 0}
    assert offsets.committable(0.0) == {HERE: 0, THERE: 0}
    assert offsets.committable(1e9) == {}


@given(
    st.lists(st.tuples(st.sampled_from(["read", "store", "commit", "lose", "assign"]), st.sampled_from([HERE, THERE])))
)
def test_whatever_happens_what_may_be_committed_is_ours_and_was_stored_long_ago(
    steps: list[tuple[str, TopicPartition]],
) -> None:
    """Each step takes a second; `kept` says what was stored when, since the partition came."""
    offsets = ReadOffsets(5.0)
    ends = {HERE: 0, THERE: 0}
    kept: dict[TopicPartition, list[tuple[int, int]]] = {}
    for now, (what, where) in enumerate(steps):
        match what:
            case "read":
                offsets.read([record(where, ends[where])])
                ends[where] += 1
            case "store":
                offsets.stored(now)
                for ours, offset in offsets.next.items():
                    kept[ours].append((now, offset))
            case "commit":
                for ours, offset in offsets.committable(now).items():
                    assert offset == max(stored for at, stored in kept[ours] if at <= now - 5)
            case "lose":
                offsets.lose([where])
                kept.pop(where, None)
            case "assign" if where not in kept:
                offsets.assign([where])
                kept[where] = []
