import time
from collections.abc import Iterator, Sequence

import pytest

from consumers.records import TopicPartition
from model_store.errors import StoreUnavailable
from model_store.redis_connection import Command, RedisConnection
from service.metrics import ScorerMetrics
from service.scoring import sweeper as module
from service.scoring.list_store import ListStore, UserList
from service.scoring.recommendations import items_in, list_json
from service.scoring.sweeper import LOST_FOR_S, Sweeper

HERE, THERE = TopicPartition("events", 0), TopicPartition("events", 1)
TTL_S = 100


class _Lists(ListStore):
    """Redis goes away when told, or something that nobody thought of happens."""

    away = 0
    broken = 0

    def index(self, where: TopicPartition) -> Iterator[tuple[list[str], list[bytes]]]:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("away")
        if self.broken:
            self.broken -= 1
            raise MemoryError
        return super().index(where)

    def items(self, user: str) -> list[str]:
        return items_in(self.read_list(user) or b"")


class Room:
    """A sweeper over some lists; the time is put forward by hand."""

    def __init__(self, connection: RedisConnection) -> None:
        self.lists = _Lists(connection, "t", recs_ttl_s=TTL_S, history_ttl_s=TTL_S)
        self.metrics, self.now = ScorerMetrics(), 0.0
        self.sweeper = Sweeper(self.lists, self.metrics, clock=lambda: self.now, wall=lambda: time.time() + self.now)

    def write(self, user: str, *items: str, where: TopicPartition = HERE) -> None:
        self.lists.write_lists([UserList(user, list(items), raw_list(user, *items), [where])])

    def swept(self) -> float | None:
        return self.metrics.registry.get_sample_value("tidemill_lists_swept_total")


def raw_list(user: str, *items: str) -> bytes:
    ranked = [(item, -float(n)) for n, item in enumerate(items)]
    return list_json(user, ranked, model_version=1, trained_through={}, events_seen=1, generated_at="")


@pytest.fixture
def room(connection: RedisConnection) -> Room:
    return Room(connection)


def test_items_leave_every_list_of_the_partitions_and_the_rest_stays(room: Room) -> None:
    room.sweeper.take_over([HERE], set())
    room.write("a", "x", "y", "z")
    room.write("b", "y")
    room.write("c", "x", where=THERE)
    room.lists.write_default(raw_list("", "x", "z"))
    room.sweeper.sweep_soon({"x", "unknown"})
    assert room.sweeper.sweep() == 2
    assert [room.lists.items(user) for user in "abc"] == [["y", "z"], ["y"], ["x"]]
    assert items_in(room.lists.read_default() or b"") == ["z"]
    assert room.sweeper.sweep() == 0  # nothing is wanted any more
    room.sweeper.sweep_soon({"x"})
    assert room.sweeper.sweep() == 0
    room.sweeper.sweep_soon(set())
    assert room.sweeper.sweep() == 0
    assert room.swept() == 2


def test_only_lists_that_hold_an_item_are_touched(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: what is read is the index, a thousand lists at a time."""
    room.lists.write_lists([UserList(f"u{n}", ["y"], raw_list(f"u{n}", "y"), [HERE]) for n in range(5000)])
    room.write("a", "x", "y")
    room.write("b", "x")
    sent: list[Command] = []
    pipeline = RedisConnection.pipeline

    def counted(connection: RedisConnection, commands: Sequence[Command]) -> list[object]:
        sent.extend(commands)
        return pipeline(connection, commands)

    monkeypatch.setattr(RedisConnection, "pipeline", counted)
    room.sweeper.take_over([HERE], {"x"})
    assert room.sweeper.sweep() == 2
    assert len(sent) < 5002 / 500 + 2 + 2


def test_whoever_takes_a_partition_over_sweeps_it_of_all_that_is_blocked(room: Room) -> None:
    room.write("a", "x", "y", where=THERE)  # by a scorer that has gone
    room.sweeper.take_over([HERE], {"x"})
    assert room.sweeper.sweep() == 0
    room.sweeper.take_over([THERE], {"x"})
    assert room.sweeper.sweep() == 1
    assert room.lists.items("a") == ["y"]


def test_what_was_written_in_a_partition_that_was_lost_is_swept_all_the_same(room: Room) -> None:
    """Whoever has it now may have heard of the deletion, and swept, before this scorer wrote its last list there."""
    room.sweeper.take_over([HERE, THERE], set())
    room.sweeper.lose([HERE, TopicPartition("events", 9)])
    room.write("a", "x", "y")
    room.now += LOST_FOR_S - 1
    room.sweeper.sweep_soon({"x"})
    assert room.sweeper.sweep() == 1
    room.now += 1
    room.sweeper.sweep_soon({"y"})
    assert room.sweeper.sweep() == 0
    room.sweeper.take_over([HERE], set())
    room.now += 1e6
    room.sweeper.sweep_soon({"y"})
    assert room.sweeper.sweep() == 1


def test_entries_of_lists_that_have_expired_are_dropped(room: Room, connection: RedisConnection) -> None:
    room.write("old", "x")
    room.write("here", "x")
    connection.call("DEL", "t:recs:old")
    room.now += TTL_S + 1
    room.lists._recs_ttl_s = 10 * TTL_S
    room.write("here", "y")
    connection.call("HSET", "t:listed:events:0", "junk", "x")
    room.sweeper.take_over([HERE], set())
    assert room.sweeper.sweep() == 0
    assert connection.call("HKEYS", "t:listed:events:0") == [b"here"]


def test_what_redis_did_not_answer_for_is_wanted_still(room: Room) -> None:
    for where in (HERE, THERE):
        room.write(f"u{where.partition}", "x", where=where)
    room.lists.write_default(raw_list("", "x"))
    room.sweeper.take_over([HERE, THERE], {"x"})
    room.lists.away = 1
    with pytest.raises(StoreUnavailable):
        room.sweeper.sweep()
    assert room.sweeper.sweep() == 2
    assert room.swept() == 3
    assert (room.lists.items("u0"), room.lists.items("u1")) == ([], [])


def test_whatever_goes_wrong_it_is_tried_again(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "GATHER_S", 0.01)
    monkeypatch.setattr(module, "REST_AT_MOST_S", 0.01)
    room.write("a", "x", "y")
    room.sweeper.take_over([HERE], {"x"})
    room.lists.broken = 2
    room.sweeper.start()
    try:
        end = time.monotonic() + 10
        while room.lists.items("a") != ["y"] and time.monotonic() < end:
            time.sleep(0.01)
    finally:
        room.sweeper.stop()
    assert room.lists.items("a") == ["y"]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_on_its_own_thread_and_again_once_redis_is_back(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "GATHER_S", 0.01)
    monkeypatch.setattr(module, "TRIM_EVERY_S", 0.05)
    room.write("a", "x", "y")
    room.sweeper.take_over([HERE], set())
    room.lists.away = 2
    room.sweeper.start()
    try:
        room.sweeper.sweep_soon({"x"})
        end = time.monotonic() + 10
        while room.lists.items("a") != ["y"] and time.monotonic() < end:
            time.sleep(0.01)
        room.now += TTL_S + 1
        while any(users for users, _ in room.lists.index(HERE)) and time.monotonic() < end:
            time.sleep(0.01)  # nothing is deleted any more, and entries go all the same
    finally:
        room.sweeper.stop()
    assert room.lists.items("a") == ["y"]
    assert [users for users, _ in room.lists.index(HERE)] == [[]]
    assert room.lists.away == 0
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "lists at rest are swept once Redis answers again: away"  # said once, and not at each attempt
    ]
