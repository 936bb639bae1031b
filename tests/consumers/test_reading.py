"""What a reader makes of what its client says: tables of stories, with a clock that is moved by hand."""

from collections.abc import Callable

import pytest

from consumers.reading import PATIENCE_S, Reading
from consumers.records import TopicPartition

A, B = TopicPartition("events", 0), TopicPartition("events", 1)
ENDS = {A: 10, B: 0}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Story:
    def __init__(self, group: str = "") -> None:
        self.clock = Clock()
        self.reading = Reading(self.clock, group)

    def polls_nothing(self, seconds: float, ends: dict[TopicPartition, int] = ENDS) -> None:
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now += 0.1
            self.reading.polled(ends)

    @property
    def trouble(self) -> str:
        return self.reading.trouble()


def reader_of_both() -> Story:
    story = Story()
    story.reading.take_up([A, B], 0)
    return story


def member_of_both() -> Story:
    story = Story("g")
    story.reading.in_group(True)
    story.reading.take_up([A, B])
    return story


Tell = Callable[[Reading], None]


@pytest.mark.parametrize(
    ("failure", "says", "others", "cure"),
    [
        (
            lambda r: r.refused(A, "denied"),
            "events-0: denied",
            [lambda r: r.received(B, 1), lambda r: r.connected(), lambda r: r.in_group(True)],
            lambda r: r.received(A, 1),
        ),
        (
            lambda r: r.refused(A, "denied"),
            "events-0: denied",
            [lambda r: r.moved(A, 0)],  # asked for again, and not answered yet
            lambda r: r.give_up([A]),
        ),
        (
            lambda r: r.group_failed("denied"),
            "group g: denied",
            [lambda r: r.received(A, 1), lambda r: r.connected()],
            lambda r: r.in_group(True),
        ),
        (
            lambda r: r.connection_failed("refused"),
            "refused",
            [lambda r: r.in_group(True)],
            lambda r: r.connected(),
        ),
        (
            lambda r: r.topic_refused("events", "denied"),
            "events: denied",
            [lambda r: r.connected(), lambda r: r.in_group(True)],
            lambda r: r.take_up([A]),
        ),
    ],
)
def test_a_failure_ends_by_its_own_cure_alone(failure: Tell, says: str, others: list[Tell], cure: Tell) -> None:
    story = member_of_both()
    assert story.trouble == ""
    failure(story.reading)
    assert story.trouble == says
    for other in others:
        other(story.reading)
        assert story.trouble == says
    cure(story.reading)
    assert story.trouble == ""


@pytest.mark.parametrize("known_end", [10, 0])
def test_records_that_are_there_and_do_not_come_are_missed(known_end: int) -> None:
    story = reader_of_both()
    story.polls_nothing(PATIENCE_S + 1, {A: known_end, B: 0})
    assert ("events-0: no record" in story.trouble) == (known_end == 10)


@pytest.mark.parametrize("new", [lambda r: r.received(A, 10), lambda r: r.received(A, 4), lambda r: r.give_up([A])])
def test_a_record_or_the_end_ends_the_waiting(new: Tell) -> None:
    story = reader_of_both()
    story.polls_nothing(PATIENCE_S + 1)
    said = story.trouble
    assert said
    story.polls_nothing(60)
    assert story.trouble == said  # one line in the log, not sixty
    new(story.reading)
    assert story.trouble == ""


def test_a_member_that_has_received_nothing_is_not_at_the_end() -> None:
    story = member_of_both()
    story.polls_nothing(PATIENCE_S + 1)
    assert story.reading.positions() == {}
    assert "events-0: no record" in story.trouble


def test_who_does_not_poll_misses_nothing() -> None:
    story = reader_of_both()
    for _ in range(20):  # held up for a minute each time, by whoever takes the records
        story.clock.now += 60
        assert story.trouble == ""
        story.reading.polled(ENDS)
        assert story.trouble == ""


def test_nobody_stays_outside_the_group_in_silence() -> None:
    story = Story("g")
    story.clock.now += PATIENCE_S - 0.1
    story.reading.in_group(False)
    assert story.trouble == ""
    story.clock.now += 0.2
    assert "group g: not a member" in story.trouble
    story.reading.in_group(True)
    assert story.trouble == ""
    story.clock.now += 100
    story.reading.in_group(False)  # a rebalance
    assert story.trouble == ""
    story.clock.now += PATIENCE_S + 0.1
    assert "group g: not a member" in story.trouble


def test_without_a_group_nobody_waits_for_one() -> None:
    story = reader_of_both()
    story.reading.in_group(False)
    story.reading.group_failed("denied")
    story.clock.now += 100
    assert story.trouble == ""
    assert story.reading.note == "offsets are not left with the broker: denied"


def test_a_client_that_failed_for_good_stays_so_and_its_successor_is_in_trouble_until_it_reads() -> None:
    story = member_of_both()
    story.reading.failed_for_good("fenced")
    others: list[Tell] = [lambda r: r.connected(), lambda r: r.in_group(True), lambda r: r.received(A, 1)]
    for tell in others:
        tell(story.reading)
        assert "fenced" in story.trouble
    successor = story.reading.anew("joining anew, after: fenced")
    assert "fenced" in successor.trouble()
    successor.in_group(True)
    assert successor.trouble() == ""


def test_positions_never_go_back_unless_they_are_moved() -> None:
    reading = reader_of_both().reading
    reading.received(A, 7)
    reading.received(A, 5)
    assert reading.positions() == {A: 7, B: 0}
    reading.moved(A, 3)
    assert reading.position(A) == 3
    reading.received(TopicPartition("events", 9), 5)  # it went away meanwhile
    assert TopicPartition("events", 9) not in reading.positions()
