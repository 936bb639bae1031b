from threading import Event

import pytest

from service.shop.pace import Pace


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def test_waits_until_due(time: FakeTime) -> None:
    pace = Pace(clock=time.clock, sleep=time.sleep)
    assert pace.until(0.0)
    assert time.slept == []
    assert pace.until(1.2)
    assert time.now == pytest.approx(101.2)


def test_the_first_one_is_due_at_once_wherever_it_stands(time: FakeTime) -> None:
    pace = Pace(clock=time.clock, sleep=time.sleep)
    assert pace.until(5.0)
    assert time.slept == []
    assert pace.until(5.5)
    assert time.now == pytest.approx(100.5)


def test_a_little_late_is_made_up_for(time: FakeTime) -> None:
    pace = Pace(clock=time.clock, sleep=time.sleep)
    pace.until(0.0)
    time.now += 0.8
    pace.until(0.5)
    pace.until(1.0)
    assert time.now == pytest.approx(101.0)


def test_a_long_pause_moves_the_schedule_rather_than_making_a_flood(time: FakeTime) -> None:
    pace = Pace(clock=time.clock, sleep=time.sleep)
    pace.until(0.0)
    time.now += 60.0
    pace.until(1.0)
    assert time.now == 160.0
    pace.until(2.0)
    assert time.now == pytest.approx(161.0)


def test_tiny_gaps_are_not_slept_one_by_one(time: FakeTime) -> None:
    pace = Pace(clock=time.clock, sleep=time.sleep)
    for n in range(10_001):
        pace.until(n / 10_000)
    assert time.now == pytest.approx(101.0, abs=0.01)
    assert len(time.slept) < 600


def test_stopping_ends_the_wait(time: FakeTime) -> None:
    stop = Event()
    pace = Pace(clock=time.clock, sleep=time.sleep, stop=stop)
    assert pace.until(0.0)
    stop.set()
    assert not pace.until(10.0)
    assert pace.stopped
    assert time.slept == []
