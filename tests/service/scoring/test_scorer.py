import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from consumers.decode import DecodeRules
from consumers.memory_source import MemoryLog, MemorySource
from consumers.micro_batch import ItemChange
from consumers.records import TopicPartition
from consumers.source import SourceStatus
from model_store.memory_store import MemoryStore
from model_store.redis_connection import RedisConnection, connect
from service.health import Health
from service.metrics import ScorerMetrics
from service.process import Fatal
from service.scoring import scorer as module
from service.scoring.catalogue import Catalogue
from service.scoring.list_store import ListStore, now_ms
from service.scoring.reloader import Reloader
from service.scoring.scorer import Scorer
from service.scoring.sweeper import Sweeper
from service.settings import ScorerSettings
from tests.consumers.samples import event_json, item_json
from tests.redis_server import redis_server
from tests.service.scoring.worlds import Trainer, body_of, items_of

ITEMS = [f"i{n}" for n in range(60)]


class World:
    """A log, a store of models with one live version, and Redis; scorers come and go."""

    def __init__(self, redis: RedisConnection, *, learned: int = 600) -> None:
        self.redis = redis
        self.log = MemoryLog()
        self.log.create("events", 2)
        self.log.create("items", 1)
        self.models = MemoryStore()
        self.trainer = Trainer(self.models)
        if learned:
            self.trainer.learn(learned)
        self.trainer.publish()

    def act(self, user: str, item: str, partition: int = 0, **fields: Any) -> None:
        value = event_json(user_id=user, item_id=item, **fields)
        self.log.append("events", value, user.encode(), partition, now_ms())

    def item(self, item: str, **fields: Any) -> None:
        self.log.append("items", item_json(item_id=item, **fields), item.encode(), 0)

    def delete(self, item: str) -> None:
        self.log.append("items", None, item.encode(), 0)


class Worker:
    """A scorer with all it needs, turned by hand."""

    def __init__(self, world: World, lists: type[ListStore] = ListStore, log_name: str = "", **settings: Any) -> None:
        chosen = {"window_ms": 0, "refresh_interval_ms": 0, "top_k": 10, "list_budget": 1.0, **settings}
        self.world = world
        self.settings = ScorerSettings(**chosen)
        self.metrics, self.health, self.stop = ScorerMetrics(), Health("scorer"), threading.Event()
        self.lists = lists(world.redis, "t", recs_ttl_s=100, history_ttl_s=100, log_name=log_name)
        self.sweeper = Sweeper(self.lists, self.metrics)
        self.reloader = Reloader(world.models, poll_s=1, device="cpu", metrics=self.metrics, health=self.health)
        self.source = MemorySource(world.log, "group")
        self.catalogue = Catalogue(MemorySource(world.log), "items", DecodeRules())
        self.scorer = Scorer(
            self.source,
            self.catalogue,
            self.reloader,
            self.lists,
            self.sweeper,
            self.settings,
            metrics=self.metrics,
            health=self.health,
            stop=self.stop,
        )
        inner = self.scorer
        self.source.subscribe(["events"], inner._on_assigned, inner._on_revoked, inner._on_lost)
        inner._read_catalogue()
        self.health.started()
        self.reloader.check()

    def turn(self, times: int = 3) -> "Worker":
        for _ in range(times):
            self.scorer.turn()
            time.sleep(0.002)
        return self

    def until(self, reached: Callable[[], object]) -> None:
        end = time.monotonic() + 20
        while not reached():
            assert time.monotonic() < end
            self.turn(1)

    def body(self, user: str) -> Any:
        return body_of(self.lists.read_list(user))

    def items(self, user: str) -> list[str]:
        return items_of(self.lists.read_list(user))

    def seen(self, user: str) -> int:
        return self.lists.histories([user])[user].history.events_seen

    def count(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"tidemill_{name}", labels)


@pytest.fixture
def world(redis: RedisConnection) -> World:
    return World(redis)


def test_whoever_acts_gets_a_list(world: World) -> None:
    world.act("a", "i1")
    world.act("b", "i2", 1)
    worker = Worker(world).turn()
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


def test_who_acted_before_there_was_anything_to_list_gets_a_list_later(redis: RedisConnection) -> None:
    """However long ago: they are quiet by then, and nothing else would ever write their list."""
    world = World(redis, learned=0)
    world.act("a", "i1")
    worker = Worker(world, active_seconds=0.01)
    for _ in range(3):
        time.sleep(0.02)
        worker.turn(1)
        worker.scorer._housekept_at = 0.0
    assert worker.lists.read_list("a") is None
    world.trainer.step()
    worker.reloader.check()
    worker.until(lambda: worker.lists.read_list("a"))
    assert worker.body("a")["events_seen"] == 1


def test_a_trending_list_is_written_for_who_is_not_known(world: World) -> None:
    Worker(world).turn(1)
    body = body_of(world.redis.call("GET", "t:recs_default"))
    assert (body["user_id"], body["model_version"], body["events_seen"], len(body["items"])) == ("", 1, 0, 10)


def test_newer_weights_rewrite_lists(world: World) -> None:
    world.act("a", "i1")
    worker = Worker(world).turn()
    world.trainer.step(through=1)
    worker.reloader.check()
    worker.until(lambda: worker.body("a")["model_version"] == 2)
    assert worker.body("a")["trained_through"] == {"events": {"0": 1}}
    assert worker.count("event_to_recommendation_seconds_count", stage="learned") == 1


def test_events_are_counted_once_each(world: World) -> None:
    for event_id in ("e1", "e1", "e2", None, "e2", None):
        fields: dict[str, Any] = {} if event_id is None else {"event_id": event_id}
        world.act("a", "i1", 0, **fields)
    world.log.append("events", b"junk", b"a", 0)
    world.log.append("events", event_json(user_id="a"), b"other", 0)
    worker = Worker(world).turn()
    assert worker.body("a")["events_seen"] == 5
    assert worker.count("events_duplicate_total") == 2
    assert worker.count("events_misrouted_total") == 1
    assert worker.count("events_rejected_total", reason="not_json") == 1
    worker.source.seek({TopicPartition("events", 0): 0})
    worker.turn()
    assert worker.body("a")["events_seen"] == worker.seen("a") == 5
    assert worker.count("events_duplicate_total") == 2


def test_a_successor_continues_exactly_where_the_other_was_killed(world: World) -> None:
    first = Worker(world)
    for n in range(7):
        world.act("a", ITEMS[n], event_id=f"e{n}")
    first.turn(1)
    assert first.seen("a") == 7
    assert world.log.committed == {}  # it was killed before that
    world.act("a", "i7", event_id="e6")  # sent twice
    world.act("a", "i8")
    second = Worker(world).turn()
    assert second.body("a")["events_seen"] == second.seen("a") == 8
    assert second.lists.histories(["a"])["a"].history.items == [*ITEMS[:7], "i8"]
    assert second.count("events_consumed_total", type="view") == 2  # what had been read was skipped
    assert second.count("events_duplicate_total") == 1


def test_a_stale_scorer_continues_from_what_is_stored(world: World) -> None:
    first, second = Worker(world), Worker(world)
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
    Worker(world).turn()
    world.trainer.step()
    second = Worker(world)
    assert second.body("a")["model_version"] == 1
    second.until(lambda: second.body("a")["model_version"] == 2)
    assert second.body("a")["events_seen"] == 1


def test_partitions_that_are_lost_take_their_users_along(world: World) -> None:
    here, there = TopicPartition("events", 0), TopicPartition("events", 1)
    world.act("a", "i1")
    world.act("b", "i1", 1)
    Worker(world).turn()
    worker = Worker(world)
    worker.source.poll(1, 0)  # the partitions are assigned, nobody is loaded yet
    worker.scorer._on_lost([here])
    world.trainer.step()
    worker.reloader.check()
    worker.until(lambda: worker.body("b")["model_version"] == 2)
    assert worker.body("a")["model_version"] == 1
    worker.scorer._on_revoked([there])
    world.trainer.step()
    worker.reloader.check()
    worker.turn(5)
    assert worker.body("b")["model_version"] == 2


def test_blocked_items_are_not_listed_until_they_are_back(world: World) -> None:
    world.act("a", "i1")
    worker = Worker(world).turn()
    best = worker.items("a")
    world.delete(best[0])
    world.item(best[1], available=False)
    world.act("a", "i1")
    worker.turn()
    assert not set(best[:2]) & set(worker.items("a"))
    world.item(best[0])
    world.item(best[1])
    worker.turn()
    world.act("a", "i1")
    worker.turn()  # of the same version
    assert worker.body("a")["model_version"] == 1
    assert set(best[:2]) <= set(worker.items("a"))


def test_what_was_blocked_before_the_start_is_never_listed(world: World) -> None:
    for item in ITEMS[:30]:
        world.delete(item)
    world.act("a", "i1")
    worker = Worker(world, top_k=50).turn()
    assert worker.items("a")
    assert not set(ITEMS[:30]) & set(worker.items("a"))


def test_what_the_model_knows_to_be_gone_is_not_listed(world: World) -> None:
    world.trainer.learn(catalogue=(ItemChange("i0", deleted=True), ItemChange("i2", available=False)))
    world.trainer.publish()
    world.act("a", "i1")
    worker = Worker(world, top_k=100).turn()
    assert not {"i0", "i2"} & set(worker.items("a"))


def test_lists_at_rest_lose_what_was_deleted(world: World) -> None:
    world.act("a", "i1")
    worker = Worker(world, refresh_interval_ms=1e9).turn()
    best = worker.items("a")
    world.delete(best[0])
    worker.turn()
    assert worker.items("a") == best
    worker.sweeper.start()
    worker.until(lambda: worker.items("a") == best[1:])
    worker.sweeper.stop()


def test_nothing_to_list_leaves_the_list_and_waits_for_a_change(world: World) -> None:
    for item in ITEMS:
        world.delete(item)
    world.act("a", "i1")
    worker = Worker(world).turn(10)
    assert worker.lists.read_list("a") is None
    assert world.redis.call("GET", "t:recs_default") is None
    assert worker.count("score_seconds_count") == 1  # not again and again
    world.trainer.step()
    worker.reloader.check()
    worker.turn(10)
    assert worker.count("score_seconds_count") == 2  # the new version might have had something
    world.item("i5")
    worker.until(lambda: worker.lists.read_list("a"))
    assert worker.items("a") == ["i5"]


@pytest.mark.parametrize(("hide", "gone"), [("none", []), ("bought", ["i3"]), ("all", ["i2", "i3"])])
def test_hide_seen(world: World, hide: str, gone: Sequence[str]) -> None:
    world.act("a", "i2")
    world.act("a", "i3", type="purchase")
    world.act("b", "i4", type="purchase")
    worker = Worker(world, hide_seen=hide, top_k=100).turn()
    assert worker.reloader.weights is not None
    whole = {item for item in worker.reloader.weights.recommender.ids if item}
    assert set(worker.items("a")) == whole - set(gone)
    assert set(worker.items("b")) == whole - ({"i4"} if gone else set())


def test_without_weights_histories_are_kept_and_health_says_so(redis: RedisConnection) -> None:
    world = World(redis)
    models, world.models = world.models, MemoryStore()
    world.act("a", "i1")
    worker = Worker(world).turn()
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


def test_offsets_are_committed_some_time_after_they_are_stored(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMIT_EVERY_S", 0.0)
    here = ("group", TopicPartition("events", 0))
    worker = Worker(world)
    world.act("a", "i1")
    worker.turn()
    assert worker.seen("a") == 1
    assert here not in world.log.committed  # a failover may lose the history yet
    monkeypatch.setattr(module, "COMMIT_AFTER_S", 0.0)
    worker.turn(1)
    assert world.log.committed[here] == 1
    for _ in range(4):
        world.act("a", "i1")
    worker.turn(1)
    worker.scorer._finish()
    assert world.log.committed[here] == worker.seen("a") == 5


def _go_back(redis: RedisConnection, then: dict[bytes, bytes]) -> None:
    """Redis as it was, as after a failover that lost what was not replicated."""
    redis.call("FLUSHALL")
    for key, dump in then.items():
        redis.call("RESTORE", key, 0, dump)


def _all_of(redis: RedisConnection) -> dict[bytes, bytes]:
    return {key: redis.call("DUMP", key) for key in redis.call("KEYS", "*")}


@pytest.mark.parametrize("everything", [False, True])
def test_what_a_failover_lost_is_stored_again(world: World, monkeypatch: pytest.MonkeyPatch, everything: bool) -> None:
    monkeypatch.setattr(module, "HOUSEKEEPING_EVERY_S", 0.0)
    worker = Worker(world)
    for user in "abc":
        world.act(user, "i1", "abc".index(user) % 2)
    worker.turn()
    then = {} if everything else _all_of(world.redis)
    world.act("a", "i2")
    world.act("b", "i2", 1)
    worker.turn()
    assert (worker.seen("a"), worker.seen("b"), worker.seen("c")) == (2, 2, 1)
    _go_back(world.redis, then)
    assert worker.seen("a") == (0 if everything else 1)
    worker.turn(5)
    assert [worker.seen(user) for user in "abc"] == [2, 2, 1]
    assert [worker.body(user)["events_seen"] for user in "abc"] == [2, 2, 1]
    assert worker.count("histories_restored_total") == (3 if everything else 2)
    world.act("a", "i3")
    worker.turn()
    assert worker.body("a")["events_seen"] == worker.seen("a") == 3
    assert worker.count("histories_restored_total") == (3 if everything else 2)


def test_an_event_that_meets_a_lost_history_continues_what_is_in_memory(world: World) -> None:
    worker = Worker(world)
    world.act("a", "i1")
    worker.turn()
    then = _all_of(world.redis)
    for item in ("i2", "i3"):
        world.act("a", item)
        worker.turn()
    _go_back(world.redis, then)
    world.act("a", "i4")
    worker.turn(1)
    assert worker.seen("a") == 4
    assert worker.lists.histories(["a"])["a"].history.items == ["i1", "i2", "i3", "i4"]


def test_what_was_lost_with_its_scorer_is_read_again(world: World) -> None:
    first = Worker(world)
    world.act("a", "i1")
    first.turn()
    then = _all_of(world.redis)
    world.act("a", "i2")
    first.turn()
    _go_back(world.redis, then)  # and the scorer is killed in the same second: Kafka gives its events again
    second = Worker(world).turn()
    assert second.body("a")["events_seen"] == second.seen("a") == 2


def test_a_topic_made_anew_ends_the_scorer_and_its_successor_begins_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMMIT_AFTER_S", 0.0)
    here = ("group", TopicPartition("events", 0))
    first = Worker(world, log_name="old")
    world.act("a", "i1")
    world.act("a", "i2")
    first.turn()
    assert first.seen("a") == 2
    first.scorer._other_kafka = lambda: "topic events was made anew"
    with pytest.raises(Fatal, match=r"topic events was made anew.*--fresh"):
        first.scorer.run()
    assert world.log.committed[here] == 0
    second = Worker(world, log_name="new").turn()  # the same offsets, and other events
    assert second.seen("a") == second.body("a")["events_seen"] == 4
    third = Worker(world, log_name="new").turn()
    assert third.seen("a") == 4


def test_while_redis_is_away_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    with redis_server() as server:
        redis = connect(server.url, retries=0)
        world = World(redis)
        worker = Worker(world)
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
        turning.join(0.2)
        assert turning.is_alive()  # what was read waits until it is stored
        server.start()
        turning.join(20)
        assert not turning.is_alive()
        worker.until(lambda: worker.lists.read_list("b") and worker.lists.read_list("c"))
        assert worker.body("b")["events_seen"] == worker.seen("b") == 1
        checks = worker.health.report()[1]["checks"]
        assert checks["lists"] == "ok"
        redis.close()


def test_waiting_for_the_catalogue_shows_in_health(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(world)
    shown: list[Any] = []
    world.item("i1")
    late = Catalogue(_Away(world.log), "items", DecodeRules())
    worker.scorer._catalogue = late

    def look() -> None:
        checks: Any = worker.health.report()[1]["checks"]
        shown.append(checks["kafka"])
        worker.stop.set()

    monkeypatch.setattr(worker.health, "set", _then(worker.health.set, look))
    worker.scorer._read_catalogue()
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


def test_a_whole_run_ends_with_everything_stored_and_committed(world: World) -> None:
    worker = Worker(world)
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
    assert sum(world.log.committed.values()) == 200
