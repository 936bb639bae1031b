import math
import threading
from dataclasses import dataclass, field

import pytest

from service.up.back_pressure import BackPressure, behind_bytes
from service.up.figures import Figures
from tests.service.up.memory_publisher import MemoryPublisher


@dataclass
class World:
    """Learning that has come as far as `learned`, and scorers that have `scorer_lag` events still to read."""

    publisher: MemoryPublisher = field(default_factory=MemoryPublisher)
    stop: threading.Event = field(default_factory=threading.Event)
    learned: int = 0
    scorer_lag: float | None = None

    def figures(self) -> Figures:
        return Figures(trained_through={"events": {"0": self.learned}}, scorer_lag=self.scorer_lag)

    def publish(self, events: int, limit_bytes: float, topic: str = "events") -> None:
        """Each of 10 bytes."""
        back_pressure = BackPressure(self.publisher, "events", self.figures, limit_bytes, self.stop)
        for n in range(events):
            back_pressure.publish(topic, f"u{n}", b"0123456789")

    def learn_all_after(self, polls: int) -> None:
        def on_poll() -> None:
            if self.publisher.polls == polls:
                self.learned, self.scorer_lag = self.publisher.delivered["events"], 0.0

        self.publisher.on_poll = on_poll


@pytest.fixture
def world() -> World:
    return World()


def test_what_is_behind_is_what_the_slower_of_learning_and_scoring_has_not_read(world: World) -> None:
    assert behind_bytes(world.publisher, "events", Figures()) == 0.0  # nothing is published yet
    world.publisher.delivered["events"] = 100
    world.publisher.delivered_bytes["events"] = 5_000
    world.publisher.ends["events"] = {0: 1060, 1: 40}  # of a topic that was not empty
    through = {"events": {"0": 1000, "1": 40}}
    assert behind_bytes(world.publisher, "events", Figures(trained_through=through)) == 60 * 50.0
    assert behind_bytes(world.publisher, "events", Figures(trained_through=through, scorer_lag=10.0)) == 60 * 50.0
    assert behind_bytes(world.publisher, "events", Figures(trained_through=through, scorer_lag=80.0)) == 80 * 50.0


def test_within_the_limit_nothing_waits(world: World) -> None:
    world.publish(1000, limit_bytes=10_000)
    assert (world.publisher.delivered["events"], world.publisher.polls) == (1000, 0)


def test_beyond_the_limit_it_waits_for_learning(world: World) -> None:
    world.learn_all_after(polls=2)
    world.publish(1200, limit_bytes=10_000)
    # it stood at the first look beyond 1000 events, went on after two polls, and was within the limit from then on
    assert (world.learned, world.publisher.delivered["events"], world.publisher.polls) == (1100, 1200, 2)


def test_it_waits_for_scorers_that_are_slower_than_learning(world: World) -> None:
    world.learned, world.scorer_lag = 10**9, 1001.0
    world.learn_all_after(polls=1)
    world.publish(100, limit_bytes=10_000)
    assert world.publisher.polls == 1


def test_stopping_ends_the_wait(world: World) -> None:
    world.publisher.on_poll = world.stop.set
    world.publish(200, limit_bytes=100)
    assert world.publisher.polls == 1  # of the wait after 100; the one after 200 finds it stopped
    assert world.publisher.delivered["events"] == 200


@pytest.mark.parametrize(("topic", "limit_bytes"), [("items", 0.0), ("events", math.inf)])
def test_the_catalogue_and_a_kafka_that_keeps_everything_are_not_waited_for(
    world: World, topic: str, limit_bytes: float
) -> None:
    world.publish(1000, limit_bytes, topic)
    assert (world.publisher.delivered[topic], world.publisher.polls) == (1000, 0)
