"""What is held of records read ahead, and what is let go."""

from hypothesis import given
from hypothesis import strategies as st

from consumers.read_ahead import ReadAhead
from consumers.records import OffsetRange, Record, TopicPartition

PARTITIONS = [TopicPartition("events", number) for number in range(3)]
ENDS = dict.fromkeys(PARTITIONS, 1000)


def record(where: TopicPartition, offset: int) -> Record:
    return Record(where.topic, where.partition, offset, 0, None, None)


def records(where: TopicPartition, start: int, end: int) -> list[Record]:
    return [record(where, offset) for offset in range(start, end)]


@given(st.integers(0, 20), st.lists(st.tuples(st.sampled_from(PARTITIONS), st.integers(1, 30)), max_size=20))
def test_never_more_than_was_said_and_what_is_held_is_whole(most: int, reads: list[tuple[TopicPartition, int]]) -> None:
    asked = OffsetRange("events", 0, 0, 7)
    ahead, read = ReadAhead(ENDS, most), dict.fromkeys(PARTITIONS, 0)
    for where, n in reads:
        ahead.add(records(where, read[where], read[where] + n), asked)
        read[where] += n
        assert ahead.held <= most + 7
    for where in PARTITIONS:
        let_go = ahead.let_go(where)
        whole = read[where] if let_go is None else let_go
        if where == PARTITIONS[0]:
            assert whole >= min(7, read[where])  # of what is asked for nothing is let go
        assert ahead.take(OffsetRange(*where, 0, 1000)) == records(where, 0, whole)
    assert ahead.held == 0


def test_the_partition_that_holds_most_lets_half_of_it_go() -> None:
    one, two, _ = PARTITIONS
    ahead = ReadAhead(ENDS, 10)
    asked = OffsetRange(*one, 0, 2)
    ahead.add([*records(two, 0, 8), *records(one, 0, 3)], asked)
    assert (ahead.held, ahead.let_go(one), ahead.let_go(two)) == (7, None, 4)
    ahead.add(records(two, 8, 12), asked)  # goes on coming, and is not kept
    assert (ahead.held, ahead.let_go(two)) == (7, 4)
    assert ahead.take(OffsetRange(*two, 0, 4)) == records(two, 0, 4)
    ahead.read_again(two)
    ahead.add(records(two, 4, 6), asked)
    assert ahead.take(OffsetRange(*two, 5, 6)) == records(two, 5, 6)  # what is before is not wanted any more
    assert ahead.held == 3


def test_what_nobody_wants_is_not_held() -> None:
    ahead = ReadAhead({PARTITIONS[0]: 5}, 10)
    ahead.add([*records(PARTITIONS[0], 3, 9), *records(PARTITIONS[1], 0, 3)], OffsetRange("events", 0, 3, 5))
    assert ahead.held == 2
