"""The lag is measured by what this process heard and when, whatever the records' own times say."""

from hypothesis import given
from hypothesis import strategies as st

from consumers.lag import MARKS, Lag
from consumers.records import TopicPartition

A, B = TopicPartition("events", 0), TopicPartition("events", 1)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_story() -> None:
    clock = Clock()
    lag = Lag(clock)
    assert (lag.events({}), lag.seconds({})) == (0, 0.0)
    lag.ends({A: 10, B: 0})
    assert lag.of_partitions({A: 10}) == {A: 0, B: 0}
    assert lag.seconds({A: 10}) == 0.0
    clock.now += 5
    lag.ends({A: 14, B: 0})
    clock.now += 1
    lag.ends({A: 16, B: 3})
    clock.now += 2
    assert lag.of_partitions({A: 10}) == {A: 6, B: 3}
    assert lag.seconds({A: 10, B: 3}) == 3.0  # since 11 came
    assert lag.seconds({A: 14, B: 3}) == 2.0  # since 15 came
    assert lag.seconds({A: 20, B: 3}) == 0.0  # further than what was heard of its end


def test_what_was_there_before_counts_from_the_start_and_nothing_read_is_a_lag() -> None:
    clock = Clock()
    lag = Lag(clock)
    lag.ends({A: 1000})
    clock.now += 60
    assert (lag.events({}), lag.seconds({})) == (1000, 60.0)


def test_partitions_that_moved_away_are_nobodys_lag_here() -> None:
    clock = Clock()
    lag = Lag(clock)
    lag.ends({A: 10, B: 10})
    clock.now += 60
    lag.keep([B])
    assert (lag.of_partitions({B: 10}), lag.seconds({B: 10})) == ({B: 0}, 0.0)
    lag.ends({A: 10})  # it comes back
    assert lag.seconds({B: 10}) == 0.0


def test_a_log_made_anew_begins_anew() -> None:
    clock = Clock()
    lag = Lag(clock)
    lag.ends({A: 1000})
    clock.now += 60
    lag.ends({A: 5})
    clock.now += 1
    assert (lag.events({}), lag.seconds({})) == (5, 1.0)


def test_after_a_long_lag_a_short_one_is_exact_again() -> None:
    clock = Clock()
    lag = Lag(clock)
    for end in range(5 * MARKS):
        clock.now += 1.0
        lag.ends({A: end})
    assert lag.seconds({A: 5 * MARKS - 1}) == 0.0
    for end in (5 * MARKS, 5 * MARKS + 1):
        clock.now += 1.0
        lag.ends({A: end})
    assert lag.seconds({A: 5 * MARKS}) == 0.0


def test_where_nothing_is_heard_the_lag_may_be_as_long() -> None:
    clock = Clock()
    lag = Lag(clock)
    lag.ends({A: 15})
    assert lag.seconds({A: 15}, unheard_s=12.0) == 12.0
    clock.now += 50
    assert lag.seconds({A: 14}, unheard_s=12.0) == 50.0


steps = st.lists(st.tuples(st.floats(0, 10), st.integers(0, 5), st.integers(0, 8)), max_size=60)


@given(steps)
def test_it_is_the_time_since_the_end_first_passed_the_position(steps: list[tuple[float, int, int]]) -> None:
    clock = Clock()
    lag = Lag(clock)
    end = position = 0
    came: list[float] = []  # when each record was heard of
    for seconds, written, read in steps:
        clock.now += seconds
        end += written
        came += [clock.now] * written
        lag.ends({A: end})
        position = min(end, position + read)
        assert lag.events({A: position}) == end - position
        assert lag.seconds({A: position}) == (clock.now - came[position] if position < end else 0.0)


@given(st.integers(MARKS, 5 * MARKS), st.integers(0, 5 * MARKS))
def test_a_long_lag_is_known_closely_and_never_too_short(heard: int, position: int) -> None:
    clock = Clock()
    lag = Lag(clock)
    times = []
    for end in range(1, heard + 1):
        clock.now += 1.0
        times.append(clock.now)
        lag.ends({A: end})
    exact = clock.now - times[position] if position < heard else 0.0
    found = lag.seconds({A: position})
    assert exact <= found <= exact + heard / 250
