"""How fast the stream goes, told from events' own times and Kafka's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.pace import MOST, Pace


def read(pace: Pace, seconds: int, stream_a_second: float, *, begin: int = 0, each: int = 40) -> None:
    """Windows of 20 events each, `each` windows a second of Kafka's time."""
    for window in range(seconds * each):
        at = begin + window / each
        pace.observe([int(1000 * stream_a_second * at)] * 20, [int(1000 * at)] * 20)


@pytest.mark.parametrize("stream_a_second", [1.0, 3.0, 9_000.0, 170_000.0])
def test_a_replay_is_as_much_faster_than_life_as_its_events_say(stream_a_second: float) -> None:
    pace = Pace()
    assert pace.value == 1
    read(pace, 12, stream_a_second)
    assert pace.value == pytest.approx(stream_a_second, rel=0.02)


def test_what_was_before_the_last_seconds_is_forgotten() -> None:
    pace = Pace()
    read(pace, 10, 5_000.0)
    for window in range(400):
        pace.observe([int(1000 * (50_000 + window / 40))] * 20, [10_000 + 25 * window] * 20)
    assert pace.value == pytest.approx(1, abs=0.05)


def test_one_wrong_time_among_many_makes_no_difference() -> None:
    pace = Pace()
    for window in range(400):
        at = 25 * window
        pace.observe([at + (86_400_000 if n == 3 else 0) for n in range(20)], [at] * 20)
    assert pace.value == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "ts", [lambda at: 0, lambda at: -at, lambda at: at // 10], ids=["still", "backwards", "slower"]
)
def test_a_stream_slower_than_life_counts_as_live(ts) -> None:  # type: ignore[no-untyped-def]
    pace = Pace()
    for window in range(400):
        pace.observe([ts(25 * window)] * 20, [25 * window] * 20)
    assert pace.value == 1


times = st.integers(0, 4 * 10**12)


@given(st.lists(st.lists(st.tuples(times, times), max_size=5), max_size=20))
def test_it_is_between_1_and_the_most_whatever_the_times_are(windows: list[list[tuple[int, int]]]) -> None:
    pace = Pace()
    for window in windows:
        pace.observe([ts for ts, _ in window], [kafka for _, kafka in window])
        assert 1 <= pace.value <= MOST
