"""What a topic refuses is on the shelf before it counts, and in the topic once that takes it."""

from collections.abc import Callable

import pytest

from consumers.dead_letters import MemoryDeadLetters
from consumers.letters import DeadLetter, Refused
from consumers.shelf import MemoryShelf, ShelfAway
from service.health import Health
from service.metrics import TrainerMetrics
from service.training.refused_letters import AGAIN_EVERY_S, PENDING_LETTERS, SHELF_AGAIN_S, RefusedLetters
from tests.service.processes import until


class Shelf(MemoryShelf):
    away = False

    def put(self, refused: Refused) -> int:
        self._ask()
        return super().put(refused)

    def count(self, topic: str) -> int:
        self._ask()
        return super().count(topic)

    def _ask(self) -> None:
        if self.away:
            raise ShelfAway("Redis: gone fishing")


class DeadLetters(MemoryDeadLetters):
    away = False
    waits_for = "all brokers are down"
    closed = 0

    def flush(self, timeout_s: float) -> bool:
        return not self.away

    def close(self) -> None:
        self.closed += 1


class World:
    def __init__(self, capacity: int = 5000) -> None:
        self.now = 100.0
        self.shelf = Shelf(capacity)
        self.refuses: Callable[[DeadLetter], str] = lambda letter: "no key"
        self.topic = DeadLetters(lambda letter: self.refuses(letter))
        self.metrics, self.health = TrainerMetrics(), Health("trainer")
        self.made = 0
        self.letters = RefusedLetters(
            self.shelf,
            ("events", "items"),
            self.make,
            metrics=self.metrics,
            health=self.health,
            clock=lambda: self.now,
        )

    def make(self) -> DeadLetters:
        self.made += 1
        return self.topic

    def put(self, *values: bytes, topic: str = "events") -> None:
        for value in values:
            self.letters.put(Refused(DeadLetter(topic, None, value, ()), "no key"))

    @property
    def check(self) -> object:
        checks = self.health.report()[1]["checks"]
        assert isinstance(checks, dict)
        return checks["dead_letters"]

    @property
    def shelved(self) -> list[bytes | None]:
        return [refused.letter.value for _, refused in self.shelf.page("events", 9999)]

    @property
    def delivered(self) -> list[bytes | None]:
        return [letter.value for letter in self.topic.letters]

    def metric(self, name: str, topic: str = "events") -> float | None:
        return self.metrics.registry.get_sample_value(f"tidemill_dead_letters_{name}", {"topic": topic})


def test_a_letter_is_kept_once_it_is_on_the_shelf_and_health_says_what_the_broker_says() -> None:
    world = World()
    assert world.letters.kept
    assert world.letters.step() == AGAIN_EVERY_S
    assert world.check == "ok"
    world.put(b"a", b"b")
    assert not world.letters.kept
    assert world.letters.step() == AGAIN_EVERY_S
    assert world.letters.kept
    assert world.shelved == [b"a", b"b"]
    assert world.check == "dead letters are refused and kept in Redis (2 of events): no key"
    assert (world.metric("refused_total"), world.metric("shelved"), world.made) == (2, 2, 0)


def test_while_the_shelf_is_away_letters_wait_in_memory_and_it_is_said() -> None:
    world = World()
    world.shelf.away = True
    world.put(b"a")
    assert world.letters.step() == SHELF_AGAIN_S
    assert not world.letters.kept
    assert world.check == "the shelf of letters that their topic refuses is away: Redis: gone fishing"
    world.put(b"b")
    world.shelf.away = False
    world.letters.step()
    assert world.letters.kept
    assert world.shelved == [b"a", b"b"]


def test_memory_is_bounded_by_saying_that_it_is_full() -> None:
    world = World()
    world.shelf.away = True
    world.put(*[b"x"] * (PENDING_LETTERS - 1))
    assert not world.letters.full
    world.put(b"x")
    assert world.letters.full
    world.shelf.away = False
    world.letters.step()
    assert not world.letters.full


def test_what_is_refused_is_sent_again_every_minute_until_the_topic_takes_it() -> None:
    world = World()
    world.put(*[b"%d" % n for n in range(250)])
    world.letters.step()
    world.put(b"i", topic="items")
    world.letters.step()
    world.now += AGAIN_EVERY_S
    world.refuses = lambda letter: "not authorized"
    world.letters.step()
    assert (world.metric("shelved"), world.delivered) == (250, [])
    assert world.check == "dead letters are refused and kept in Redis (250 of events, 1 of items): not authorized"
    world.refuses = lambda letter: ""
    world.letters.step()
    assert world.delivered == []
    world.now += AGAIN_EVERY_S
    world.letters.step()
    assert world.delivered == [*[b"%d" % n for n in range(250)], b"i"]
    assert (world.metric("shelved"), world.check) == (0, "ok")
    assert (world.made, world.topic.closed) == (3, 3)
    world.now += AGAIN_EVERY_S
    world.letters.step()
    assert world.made == 3  # with nothing to send nothing is made


def test_a_letter_that_is_still_refused_holds_up_no_other() -> None:
    world = World()
    world.put(*[b"bad", b"good"] * 120)
    world.letters.step()
    world.refuses = lambda letter: "no key" if letter.value == b"bad" else ""
    world.now += AGAIN_EVERY_S
    world.letters.step()
    assert world.delivered == [b"good"] * 120
    assert world.shelved == [b"bad"] * 120


def test_what_an_earlier_run_has_left_is_sent_at_once() -> None:
    world = World()
    world.shelf.put(Refused(DeadLetter("events", None, b"old", ()), "no key"))
    world.refuses = lambda letter: ""
    world.letters.step()
    assert world.delivered == [b"old"]
    assert world.shelved == []


def test_where_no_broker_answers_the_letters_stay() -> None:
    world = World()
    world.shelf.put(Refused(DeadLetter("events", None, b"a", ()), "no key"))
    world.topic.away = True
    assert world.letters.step() == AGAIN_EVERY_S
    assert world.shelved == [b"a"]
    assert world.check == "dead letters are refused and kept in Redis (1 of events): all brokers are down"


def test_letters_that_had_to_make_room_are_counted() -> None:
    world = World(capacity=3)
    world.put(b"a", b"b", b"c", b"d", b"e")
    world.letters.step()
    assert world.shelved == [b"c", b"d", b"e"]
    assert world.metric("dropped_total") == 2


def test_its_thread_outlives_what_nobody_thought_of(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    puts = world.shelf.put
    world.shelf.put = lambda refused: 1 // 0  # type: ignore[method-assign]
    world.letters.start()
    world.put(b"a")
    assert until(lambda: "ZeroDivisionError" in caplog.text)
    assert not world.letters.kept
    world.shelf.put = puts  # type: ignore[method-assign]
    assert world.letters.wait_kept(10)
    world.letters.stop()
    assert world.shelved == [b"a"]
