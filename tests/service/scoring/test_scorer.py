"""The loop as a whole: what scorers promise who come, go, die and take over from each other."""

import dataclasses
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from consumers.memory_source import MemorySource
from consumers.records import TopicPartition
from consumers.source import SourceStatus
from consumers.times import now_ms
from model_store.memory_store import MemoryStore
from model_store.redis_connection import RedisConnection, connect
from service.model.config import HistoryConfig
from service.process import Fatal
from service.scoring import scorer as module
from service.scoring.live_rule import FACT
from service.scoring.read_offsets import COMMIT_AFTER_S
from service.training.learner import Learner
from tests.consumers.samples import event_json
from tests.redis_server import redis_server
from tests.service.scoring.workers import ITEMS, Worker, World, go_back, in_redis, started
from tests.service.scoring.worlds import CONFIG, body_of

HERE, THERE = TopicPartition("events", 0), TopicPartition("events", 1)


@pytest.fixture
def world(connection: RedisConnection) -> World:
    return World(connection)


def test_whoever_acts_gets_a_list(world: World) -> None:
    world.act("a", "i1")
    world.act("b", "i2", 1)
    worker = started(world).turn()
    for user in "ab":
        body = worker.body(user)
        assert (body["user_id"], body["model_version"], body["events_seen"]) == (user, 1, 1)
        assert body["trained_through"] == {"events": {"0": 0}}
        items, scores = worker.items(user), [item["score"] for item in body["items"]]
        assert len(items) == len(set(items)) == 10
        assert scores == sorted(scores, reverse=True)
        assert all(map(math.isfinite, scores))
    assert worker.count("recommendations_written_total") == 2
    assert worker.count("event_to_recommendation_seconds_count", stage="history") == 2


def test_who_acted_before_there_was_anything_to_list_gets_a_list_later(connection: RedisConnection) -> None:
    """However long ago: they are quiet by then, and nothing else would ever write their list."""
    world = World(connection, learned=False)
    world.act("a", "i1")
    worker = started(world, active_seconds=0.01)
    for _ in range(3):
        time.sleep(0.02)
        worker.turn(1)
        worker.clock.pass_by(1)
    assert worker.lists.read_list("a") is None  # a model that knows no items leaves lists as they are
    world.trainer.step()
    worker.reloader.check()
    worker.until(lambda: worker.lists.read_list("a") is not None and worker.items("a"))
    assert worker.body("a")["events_seen"] == 1


def test_newer_weights_rewrite_lists(world: World) -> None:
    world.act("a", "i1")
    worker = started(world).turn()
    world.trainer.step(through=1)
    worker.reloader.check()
    worker.until(lambda: worker.body("a")["model_version"] == 2)
    assert worker.body("a")["trained_through"] == {"events": {"0": 1}}
    assert worker.count("event_to_recommendation_seconds_count", stage="learned") == 1


def test_events_are_counted_once_each_however_often_they_are_sent_and_read(world: World) -> None:
    for event_id in ("e1", "e1", "e2", None, "e2", None):
        fields: dict[str, Any] = {} if event_id is None else {"event_id": event_id}
        world.act("a", "i1", 0, **fields)
    world.log.append("events", b"junk", b"a", 0)
    world.log.append("events", event_json(user_id="a"), b"other", 0)
    worker = started(world).turn()
    assert worker.body("a")["events_seen"] == 5
    worker.source.seek({HERE: 0})
    worker.turn()
    assert worker.body("a")["events_seen"] == worker.seen("a") == 5
    assert worker.count("events_duplicate_total") == 2


def test_items_deleted_before_the_start_are_never_listed(world: World) -> None:
    for item in ITEMS[:30]:
        world.delete(item)
    world.act("a", "i1")
    worker = started(world, top_k=50).turn()
    assert worker.items("a")
    assert not set(ITEMS[:30]) & set(worker.items("a"))


def test_lists_at_rest_lose_what_was_deleted(world: World) -> None:
    world.act("a", "i1")
    worker = started(world, refresh_interval_ms=3_600_000).turn()
    best = worker.items("a")
    world.delete(best[0])
    world.item(best[1], available=False)
    worker.turn()
    assert worker.items("a") == best
    assert worker.sweeper.sweep() >= 2  # and the one for everybody else, and what goes with each item
    assert worker.items("a") == best[2:]


def test_lists_of_those_whom_nobody_remembers_lose_what_was_deleted(world: World) -> None:
    """Whoever reads their partition sweeps them, also of what was deleted while nobody did."""
    world.act("a", "i1")
    world.act("b", "i1", 1)
    first = started(world, active_seconds=0.001).turn()
    best = first.items("a")
    assert first.items("b") == best
    for _ in range(2):
        first.clock.pass_by(COMMIT_AFTER_S)
        first.turn(1)
    first.scorer.finish()
    world.delete(best[0])
    second = started(world, active_seconds=0.001).turn()
    second.sweeper.sweep()
    world.delete(best[1])
    second.turn()
    second.sweeper.sweep()
    assert second.items("a") == second.items("b") == best[2:]
    assert second.count("active_users") == 0
    assert second.count("recommendations_written_total") == 0


def test_without_weights_histories_are_kept_and_health_says_so(connection: RedisConnection) -> None:
    world = World(connection)
    models, world.models = world.models, MemoryStore()
    world.act("a", "i1")
    worker = started(world).turn()
    good, report = worker.health.report()
    assert not good
    checks: Any = report["checks"]
    assert checks["weights"] == "no version yet"
    assert (worker.seen("a"), worker.lists.read_list("a")) == (1, None)
    worker.reloader._store = models
    assert worker.reloader.check()
    worker.turn()
    assert worker.body("a")["events_seen"] == 1
    assert worker.health.report()[0]


# -- taking over -------------------------------------------------------------------------------------------------------


def test_a_successor_continues_exactly_where_the_other_was_killed(world: World) -> None:
    first = started(world)
    for n in range(7):
        world.act("a", ITEMS[n], event_id=f"e{n}")
    first.turn(1)
    assert first.seen("a") == 7
    assert world.log.committed == {}  # it was killed before that
    world.act("a", "i7", event_id="e6")  # sent twice
    world.act("a", "i8")
    second = started(world).turn()
    assert second.body("a")["events_seen"] == second.seen("a") == 8
    assert second.lists.histories(["a"])["a"].history.items == [*ITEMS[:7], "i8"]
    assert second.count("events_consumed_total", type="view") == 2  # what had been read was skipped
    assert second.count("events_duplicate_total") == 1


def test_a_stale_scorer_continues_from_what_is_stored(world: World) -> None:
    first, second = started(world), started(world)
    world.act("a", "i1")
    first.turn()
    world.act("a", "i2")
    second.turn()  # has read both, the first of them stored by the other
    assert second.body("a")["events_seen"] == 2
    world.act("a", "i3")
    first.turn()  # believes that one event is stored
    assert first.count("history_conflicts_total") == 1
    assert first.body("a")["events_seen"] == first.seen("a") == 3
    second.turn()
    assert second.body("a")["events_seen"] == second.seen("a") == 3
    assert second.lists.histories(["a"])["a"].history.items == ["i1", "i2", "i3"]


def test_who_acted_lately_is_taken_over(world: World) -> None:
    world.act("a", "i1")
    started(world).turn()
    world.trainer.step()
    second = started(world)
    assert second.body("a")["model_version"] == 1
    second.until(lambda: second.body("a")["model_version"] == 2)
    assert second.body("a")["events_seen"] == 1


def test_partitions_that_are_lost_take_their_users_along(world: World) -> None:
    world.act("a", "i1")
    world.act("b", "i1", 1)
    started(world).turn()
    worker = started(world)
    worker.source.poll(1, 0)  # the partitions are assigned, nobody is loaded yet
    worker.scorer._on_lost([HERE])
    world.trainer.step()
    worker.reloader.check()
    worker.until(lambda: worker.body("b")["model_version"] == 2)
    assert worker.body("a")["model_version"] == 1
    worker.scorer._on_revoked([THERE])
    world.trainer.step()
    worker.reloader.check()
    worker.turn(5)
    assert worker.body("b")["model_version"] == 2


def test_what_is_revoked_is_committed_as_far_as_redis_cannot_lose_it_and_what_is_lost_never(world: World) -> None:
    worker = started(world)
    for partition in (0, 1, 1):
        world.act(f"u{partition}", "i1", partition)
    worker.turn(1)
    worker.clock.pass_by(COMMIT_AFTER_S)
    worker.scorer._on_lost([HERE])
    worker.scorer._on_revoked([THERE])
    assert world.log.committed == {("group", THERE): 2}
    worker.clock.pass_by(2 * COMMIT_AFTER_S)
    worker.turn(1)
    worker.clock.pass_by(2 * COMMIT_AFTER_S)
    worker.turn(1)
    assert world.log.committed == {("group", THERE): 2}


def test_what_redis_loses_after_partitions_were_handed_over_is_read_again(world: World) -> None:
    first = started(world)
    world.act("a", "i1")
    first.turn()
    then = in_redis(world.redis)
    world.act("a", "i2")
    first.turn()
    first.scorer.finish()
    go_back(world.redis, then)  # nobody has it in memory any more
    second = started(world)
    second.turn()
    assert second.seen("a") == 2
    assert second.body("a")["events_seen"] == 2


def test_offsets_are_committed_some_time_after_they_are_stored(world: World) -> None:
    here = ("group", HERE)
    worker = started(world)
    world.act("a", "i1")
    worker.turn()
    assert worker.seen("a") == 1
    worker.clock.pass_by(COMMIT_AFTER_S - 1)
    worker.turn(1)
    assert here not in world.log.committed  # a failover may lose the history yet
    worker.clock.pass_by(1)
    worker.turn(1)
    assert world.log.committed[here] == 1
    for _ in range(4):
        world.act("a", "i1")
    worker.clock.pass_by(1)
    worker.turn(1)
    assert world.log.committed[here] == 1
    worker.clock.pass_by(COMMIT_AFTER_S)
    worker.scorer.finish()
    assert world.log.committed[here] == worker.seen("a") == 5


# -- a Redis that goes back in time, or away ---------------------------------------------------------------------------


@pytest.mark.parametrize("everything", [False, True])
def test_what_a_failover_lost_is_stored_again(world: World, everything: bool) -> None:
    worker = started(world)
    for user in "abc":
        world.act(user, "i1", "abc".index(user) % 2)
    worker.turn()
    then = {} if everything else in_redis(world.redis)
    world.act("a", "i2")
    world.act("b", "i2", 1)
    worker.turn()
    assert (worker.seen("a"), worker.seen("b"), worker.seen("c")) == (2, 2, 1)
    go_back(world.redis, then)
    assert worker.seen("a") == (0 if everything else 1)
    worker.clock.pass_by(1)
    worker.turn(5)
    assert [worker.seen(user) for user in "abc"] == [2, 2, 1]
    assert [worker.body(user)["events_seen"] for user in "abc"] == [2, 2, 1]
    assert worker.count("histories_restored_total") == (3 if everything else 2)
    world.act("a", "i3")
    worker.turn()
    assert worker.body("a")["events_seen"] == worker.seen("a") == 3
    assert worker.count("histories_restored_total") == (3 if everything else 2)


@pytest.mark.parametrize("everything", [False, True])
def test_what_a_failover_lost_is_stored_again_also_when_others_act_at_once(world: World, everything: bool) -> None:
    worker = started(world)
    world.act("a", "i1")
    worker.turn()
    then = {} if everything else in_redis(world.redis)
    world.act("a", "i2")
    worker.turn()
    go_back(world.redis, then)
    for item in ("i1", "i2"):  # before anybody has looked whether something is lost
        world.act("b", item)
        worker.turn()
    worker.clock.pass_by(1)
    worker.turn(5)
    assert (worker.seen("a"), worker.seen("b")) == (2, 2)
    assert (worker.body("a")["events_seen"], worker.body("b")["events_seen"]) == (2, 2)
    world.act("a", "i3")
    worker.turn()
    then = in_redis(world.redis)
    world.act("a", "i4")
    worker.turn()
    go_back(world.redis, then)  # and it is noticed the next time as well
    worker.clock.pass_by(1)
    worker.turn(5)
    assert worker.seen("a") == 4


def test_what_was_lost_with_its_scorer_is_read_again(world: World) -> None:
    first = started(world)
    world.act("a", "i1")
    first.turn()
    then = in_redis(world.redis)
    world.act("a", "i2")
    first.turn()
    go_back(world.redis, then)  # and the scorer is killed in the same second: Kafka gives its events again
    second = started(world).turn()
    assert second.body("a")["events_seen"] == second.seen("a") == 2


def test_while_redis_is_away_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    with redis_server() as server:
        connection = connect(server.url, retries=0)
        world = World(connection)
        worker = started(world)
        world.act("a", "i1")
        worker.turn()
        server.kill()
        worker.turn()  # nothing to store: the loop goes on
        world.trainer.step()
        worker.reloader.check()
        worker.turn()
        checks: Any = worker.health.report()[1]["checks"]
        assert checks["lists"].startswith("Redis: ")
        world.act("b", "i2")
        world.act("c", "i2")
        turning = threading.Thread(target=worker.turn)
        turning.start()
        turning.join(0.05)
        assert turning.is_alive()  # what was read waits until it is stored
        server.start()
        turning.join(20)
        assert not turning.is_alive()
        worker.until(lambda: worker.lists.read_list("b") and worker.lists.read_list("c"))
        assert worker.body("b")["events_seen"] == worker.seen("b") == 1
        checks = worker.health.report()[1]["checks"]
        assert checks["lists"] == "ok"
        connection.close()


# -- Kafka -------------------------------------------------------------------------------------------------------------


def test_a_topic_made_anew_ends_the_scorer_and_its_successor_begins_it(world: World) -> None:
    first = started(world, log_name="old")
    world.act("a", "i1")
    world.act("a", "i2")
    first.turn()
    assert first.seen("a") == 2
    world.other_kafka = "topic events was made anew"
    with pytest.raises(Fatal, match=r"topic events was made anew.*--fresh"):
        first.scorer.run()
    assert world.log.committed[("group", HERE)] == 0
    world.other_kafka = None
    second = started(world, log_name="new").turn()  # the same offsets, and other events
    assert second.seen("a") == second.body("a")["events_seen"] == 4
    third = started(world, log_name="new").turn()
    assert third.seen("a") == 4


def test_records_that_expired_unread_are_counted(world: World) -> None:
    worker = started(world)
    for _ in range(3):
        world.act("a", "i1")
    world.log.expire(HERE, 2)
    worker.source.poll(0, 0)  # assigned from offset 2: what had expired before is none of its business
    world.act("a", "i1")
    world.log.expire(HERE, 3)
    worker.turn()
    assert worker.seen("a") == 1
    assert worker.count("events_expired_total", topic="events", partition="0") == 1


@pytest.mark.parametrize(
    "kafka_ms",
    [None, -1, 1_700_000_000, now_ms() + 3_600_000, now_ms() - 3_600_000],
    ids=["none", "before 1970", "in seconds", "an hour ahead", "an hour late"],
)
def test_metrics_say_how_far_behind_it_is(world: World, kafka_ms: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = started(world)
    world.act("a", "i1")
    worker.turn()
    labels = {"topic": "events", "partition": "0"}
    worker.clock.pass_by(1)
    worker.turn(1)
    assert worker.count("consumer_lag_events", **labels) == worker.count("consumer_lag_seconds") == 0
    assert worker.count("active_users") == 1
    assert worker.count("lists_due") == 0
    monkeypatch.setattr(worker.source, "poll", lambda *_: [])
    for _ in range(3):
        world.log.append("events", event_json(), b"u1", 0, now_ms() if kafka_ms is None else kafka_ms)
    worker.clock.pass_by(1)
    worker.turn(1)
    worker.clock.pass_by(60)
    worker.turn(1)
    assert worker.count("consumer_lag_events", **labels) == 3
    assert 60 <= (worker.count("consumer_lag_seconds") or 0) < 70
    monkeypatch.undo()
    worker.clock.pass_by(1)
    worker.turn(2)
    worker.clock.pass_by(1)
    worker.turn(1)
    assert worker.count("consumer_lag_events", **labels) == worker.count("consumer_lag_seconds") == 0


def test_marks_of_transactions_are_no_lag(world: World) -> None:
    worker = started(world)
    world.act("a", "i1")
    world.log.mark("events", 0)
    worker.turn()
    worker.clock.pass_by(1)
    worker.turn(1)
    worker.clock.pass_by(60)
    worker.turn(1)
    assert worker.count("consumer_lag_events", topic="events", partition="0") == 0
    assert worker.count("consumer_lag_seconds") == 0


@pytest.mark.parametrize("gone", ["_on_lost", "_on_revoked"])
def test_the_lag_of_partitions_that_moved_away_is_shown_no_more(world: World, gone: str) -> None:
    worker = started(world)
    worker.turn()
    worker.clock.pass_by(1)
    worker.turn(1)
    assert worker.count("consumer_lag_events", topic="events", partition="0") == 0
    getattr(worker.scorer, gone)([HERE])
    worker.clock.pass_by(1)
    worker.turn(1)
    assert worker.count("consumer_lag_events", topic="events", partition="0") is None
    assert worker.count("consumer_lag_events", topic="events", partition="1") == 0
    worker.scorer._on_assigned([HERE])
    worker.clock.pass_by(1)
    worker.turn(1)
    assert worker.count("consumer_lag_events", topic="events", partition="0") == 0


@pytest.mark.parametrize(
    ("events", "items", "kafka", "reading"),
    [
        (SourceStatus(), SourceStatus(), "ok", "events[0], events[1]"),
        (SourceStatus(False, "events: denied"), SourceStatus(), "events: denied", "events[0], events[1]"),
        (SourceStatus(), SourceStatus(False, "items: denied"), "items: denied", "events[0], events[1]"),
        (SourceStatus(False, "one"), SourceStatus(False, "other"), "one; other", "events[0], events[1]"),
        (
            SourceStatus(True, "no partition: 5 members, 4 partitions"),
            SourceStatus(),
            "ok",
            "no partition: 5 members, 4 partitions",
        ),
    ],
)
def test_what_keeps_either_source_from_reading_is_said_and_what_does_not_is_a_fact(
    world: World, events: SourceStatus, items: SourceStatus, kafka: str, reading: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = started(world, items_source=_Other(world.log))
    worker.turn()
    monkeypatch.setattr(MemorySource, "status", events)
    monkeypatch.setattr(_Other, "status", items)
    worker.clock.pass_by(1)
    worker.turn(1)
    report: Any = worker.health.report()[1]
    assert (report["checks"]["kafka"], report["reading"]) == (kafka, reading)


class _Other(MemorySource):
    pass


def test_waiting_for_the_topic_of_items_shows_in_health(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.item("i1")
    worker = Worker(world, items_source=_Away(world.log))
    shown: list[Any] = []

    def look() -> None:
        checks: Any = worker.health.report()[1]["checks"]
        shown.append(checks["kafka"])
        worker.stop.set()

    monkeypatch.setattr(worker.health, "set", _then(worker.health.set, look))
    worker.scorer.start()
    assert shown == ["the broker is away"]


class _Away(MemorySource):
    def poll(self, max_records: int, timeout_s: float) -> list[Any]:
        return []

    @property
    def status(self) -> SourceStatus:
        return SourceStatus(False, "the broker is away")


def _then(first: Callable[..., None], second: Callable[[], None]) -> Callable[..., None]:
    def both(*arguments: Any) -> None:
        first(*arguments)
        second()

    return both


def test_histories_are_as_the_live_version_says_even_before_it_is_loaded(world: World) -> None:
    world.models = MemoryStore()  # it takes a while to load
    worker = started(world, live_history=HistoryConfig(length=2, event_weights={"view": 1.0, "click": 0.0}))
    for item in ("i1", "i2", "i3"):
        world.act("a", item)
    world.act("a", "i4", type="click")
    worker.until(lambda: worker.seen("a") == 4)
    assert worker.lists.histories(["a"])["a"].history.items == ["i2", "i3"]


def test_a_low_rating_by_the_live_version_s_scale_takes_its_item_out_of_the_list(world: World) -> None:
    """Though the scorer was started without a scale, and until the user wants the item again."""
    learner = Learner(dataclasses.replace(CONFIG, history=HistoryConfig(rating_scale=(1, 5))), evaluate_sample=0)
    world.trainer.learner = learner
    world.trainer.learn(200)
    world.trainer.publish(snapshot=True)
    worker = started(world, top_k=100, history_length=20)
    world.act("b", "i1")

    def reflected() -> int:
        """How many of the user's events the list takes into account."""
        raw = worker.lists.read_list("a")
        return 0 if raw is None else int(body_of(raw)["events_seen"])

    for value, listed in ((5.0, True), (2.0, False), (None, True), (1.0, False), (3.0, True)):
        before = reflected()
        world.act("a", "i1", type="rating", value=value)
        while reflected() == before:
            worker.turn(1)
        assert ("i1" in worker.items("a")) == listed
    assert "i1" in worker.items("b")
    assert worker.lists.histories(["a"])["a"].history.items == ["i1"] * 3
    assert worker.health.report()[1][FACT] == ["rating_scale 1,5, here (none)"]


def test_a_whole_run_ends_with_everything_stored(world: World) -> None:
    worker = Worker(world, clock=time.monotonic)
    for n in range(200):
        world.act(f"u{n % 20}", ITEMS[n % 60], n % 2)
    running = threading.Thread(target=worker.scorer.run)
    running.start()
    end = time.monotonic() + 20
    while worker.lists.read_list("u19") is None and time.monotonic() < end:
        time.sleep(0.01)
    worker.stop.set()
    running.join(10)
    assert not running.is_alive()
    assert [worker.seen(f"u{n}") for n in range(20)] == [10] * 20
    assert not world.log.committed  # the latest seconds are for whoever goes on to read again
