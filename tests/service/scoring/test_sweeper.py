import time
from collections.abc import Iterator, Sequence

import pytest

from model_store.errors import StoreUnavailable
from model_store.redis_connection import RedisConnection
from service.metrics import ScorerMetrics
from service.scoring import sweeper as module
from service.scoring.list_store import ListStore
from service.scoring.recommendations import list_json
from service.scoring.sweeper import Sweeper
from tests.service.scoring.worlds import items_of


def raw_list(user: str, *items: str) -> bytes:
    ranked = [(item, -float(n)) for n, item in enumerate(items)]
    return list_json(user, ranked, model_version=1, trained_through={}, events_seen=1, generated_at="")


class _Raced(ListStore):
    """A scorer writes between the reading and the replacing of lists; and Redis goes away when told."""

    newer: bytes | None = None
    away = 0

    def replace_lists(self, changes: Sequence[tuple[str, bytes, bytes]]) -> int:
        if self.newer is not None:
            self.write_lists([("a", self.newer)])
        return super().replace_lists(changes)

    def lists_at_rest(self, batch: int = 500) -> Iterator[list[tuple[str, bytes]]]:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("away")
        return super().lists_at_rest(batch)


@pytest.fixture
def lists(connection: RedisConnection) -> _Raced:
    return _Raced(connection, "t", recs_ttl_s=100, history_ttl_s=100)


def test_items_leave_every_list_and_the_rest_stays(lists: _Raced, connection: RedisConnection) -> None:
    lists.write_lists([("a", raw_list("a", "x", "y", "z")), ("b", raw_list("b", "y")), ("junk", b"no list")])
    lists.write_default(raw_list("", "x", "z"))
    metrics = ScorerMetrics()
    sweeper = Sweeper(lists, metrics)
    assert sweeper.sweep({"x", "unknown"}) == 2
    assert lists.read_list("a") == list_json(
        "a", [("y", -1.0), ("z", -2.0)], model_version=1, trained_through={}, events_seen=1, generated_at=""
    )
    assert items_of(lists.read_list("b")) == ["y"]
    assert lists.read_list("junk") == b"no list"
    assert items_of(connection.call("GET", "t:recs_default")) == ["z"]
    assert sweeper.sweep({"x"}) == 0
    assert sweeper.sweep(set()) == 0
    assert metrics.registry.get_sample_value("tidemill_lists_swept_total") == 2


def test_a_list_written_meanwhile_is_not_overwritten(lists: _Raced) -> None:
    lists.write_lists([("a", raw_list("a", "x", "y"))])
    lists.newer = raw_list("a", "new")
    assert Sweeper(lists, ScorerMetrics()).sweep({"x"}) == 0
    assert items_of(lists.read_list("a")) == ["new"]


def test_on_its_own_thread_and_again_once_redis_is_back(
    lists: _Raced, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "GATHER_S", 0.01)
    lists.write_lists([("a", raw_list("a", "x", "y"))])
    lists.away = 2
    sweeper = Sweeper(lists, ScorerMetrics())
    sweeper.start()
    try:
        sweeper.sweep_soon(set())
        sweeper.sweep_soon({"x"})
        end = time.monotonic() + 10
        while items_of(lists.read_list("a")) != ["y"] and time.monotonic() < end:
            time.sleep(0.01)
    finally:
        sweeper.stop()
    assert items_of(lists.read_list("a")) == ["y"]
    assert lists.away == 0
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "lists at rest are swept once Redis answers again: away"  # said once, and not at each attempt
    ]
