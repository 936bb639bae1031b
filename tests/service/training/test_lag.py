from consumers.records import TopicPartition
from service.training.lag import Lag

ONE, TWO = TopicPartition("events", 0), TopicPartition("events", 1)


def test_records_not_yet_taken_in() -> None:
    done = {ONE: 10}
    lag = Lag(done)
    assert (lag.events(), lag.seconds(1000.0)) == (0, 0.0)
    lag.ends({ONE: 15, TWO: 4})
    assert lag.of_partitions() == {ONE: 5, TWO: 4}
    done.update({ONE: 15, TWO: 4})
    assert lag.events() == 0
    done[ONE] = 20  # further than what was heard of its end
    assert lag.of_partitions() == {ONE: 0, TWO: 0}


def test_the_age_of_the_newest_record_taken_in() -> None:
    done = {ONE: 10}
    lag = Lag(done)
    lag.ends({ONE: 15})
    assert lag.seconds(1000.0) == 0.0  # none was, so nothing is known
    for ms in (990_000, 970_000):
        lag.took(ms)
    assert lag.seconds(1000.0) == 10.0
    assert lag.seconds(900.0) == 0.0  # a clock that is behind
    done[ONE] = 15
    assert lag.seconds(1000.0) == 0.0


def test_where_nothing_is_heard_the_lag_may_be_as_long() -> None:
    lag = Lag({ONE: 15})
    lag.ends({ONE: 15})
    assert lag.seconds(1000.0, unheard_s=12.0) == 12.0
    lag.ends({ONE: 16})
    lag.took(950_000)
    assert lag.seconds(1000.0, unheard_s=12.0) == 50.0
