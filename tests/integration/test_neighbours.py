"""Faults of the neighbours (Redis, Kafka, the network), one after the other, under one trainer and one scorer that are
never restarted for any of them. After each, every event is learned once and counted once, and while it lasts, `/health`
and the metrics say so.

The tests of this file share their processes and run in the order they stand in.
"""

import itertools
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from service.local import start_kafka
from tests import brokers
from tests.integration.world import World, until
from tests.proxy import Proxy
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

USERS = [f"u{n}" for n in range(20)]
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
Process = subprocess.Popen[bytes]


class Running:
    """A trainer and a scorer, each with its own way to Redis, and to Kafka where that can be had."""

    def __init__(self, logs: Path, kafka: "Mock | Real", resources: ExitStack) -> None:
        self.kafka = kafka
        self._folders = (logs / f"redis-{n}" for n in itertools.count())
        self._resources = resources
        self.redis = self.new_redis()
        self.trainer_redis, self.scorer_redis, self._our_redis = (
            resources.enter_context(Proxy(self.redis.port)) for _ in range(3)
        )
        self.world = World(kafka.bootstrap, _url(self._our_redis), logs)
        resources.callback(self.world.close)
        self.seen: Counter[str] = Counter()
        self.learnable = 0
        self._random = random.Random(1)
        self._numbers = itertools.count()
        self.trainer, self.scorer = self.start_trainer(), self.start_scorer()
        until(self.world.live, 60, "a first version")
        self.act(50)
        self.exact()

    def new_redis(self, *options: str) -> RedisServer:
        folder = next(self._folders)
        folder.mkdir()
        server = RedisServer(folder, *DURABLE, *options)
        server.start()
        self._resources.callback(server.kill)
        return server

    def start_trainer(self, **environment: str) -> Process:
        return self.world.start(
            "trainer", **self.kafka.trainer, TIDEMILL_REDIS_URL=_url(self.trainer_redis), **environment
        )

    def start_scorer(self) -> Process:
        return self.world.start("scorer", **self.kafka.scorer, TIDEMILL_REDIS_URL=_url(self.scorer_redis))

    def redis_is(self, server: RedisServer) -> None:
        self.redis = server
        for way in (self.trainer_redis, self.scorer_redis, self._our_redis):
            way.lead_to(server.port)

    def act(self, events: int, *, flush: bool = True) -> None:
        for _ in range(events):
            user, item = self._random.choice(USERS), f"i{self._random.randrange(100)}"
            now = int(time.time() * 1000)
            self.world.send(
                {"user_id": user, "item_id": item, "type": "click", "ts": now, "event_id": f"e{next(self._numbers)}"}
            )
            self.seen[user] += 1
        self.learnable += events
        if flush:
            self.world.flush()

    def learned(self) -> bool:
        live = self.world.learned_all()
        return live is not None and live["events_trained"] == self.learnable

    def listed(self) -> bool:
        return all((self.world.recs(user) or {}).get("events_seen") == count for user, count in self.seen.items())

    def well(self) -> bool:
        return all(self.world.health(process)[0] == 200 for process in (self.trainer, self.scorer))

    def metrics_say_so(self) -> bool:
        return all(
            self.world.metric(process, "health_check") == len(self.world.health(process)[1])
            for process in (self.trainer, self.scorer)
        )

    def exact(self, seconds: float = 60) -> None:
        """Everything is learned and listed, exactly once; the processes are the same ones, and say that all is well."""
        until(self.learned, seconds, f"{self.learnable} events learned, exactly")
        until(self.listed, seconds, "every list exact")
        until(self.well, seconds, "all well again")
        for process in (self.trainer, self.scorer):
            assert process.poll() is None
        until(self.metrics_say_so, seconds, "the metrics say so too")

    def says(self, process: Process, *checks: str, seconds: float = 30) -> None:
        """/health answers 503 because of `checks`, and their metrics are 0."""

        def said() -> bool:
            status, states = self.world.health(process)
            wrong = {check for check, state in states.items() if state != "ok"}
            return (
                status == 503
                and wrong >= set(checks)
                and all(self.world.metric(process, "health_check", check=check) == 0 for check in checks)
            )

        until(said, seconds, f"/health says what is wrong with {checks}")


class Mock:
    """librdkafka's mock cluster: no way to it but its own, no way to tell it anything; it can be frozen."""

    def __init__(self, resources: ExitStack) -> None:
        server = start_kafka()
        resources.callback(server.child.close)
        self.bootstrap = server.address
        self.trainer: dict[str, str] = {}
        self.scorer: dict[str, str] = {}
        self.stop: Callable[[], None] = lambda: server.child.signal(signal.SIGSTOP)
        self.start: Callable[[], None] = lambda: server.child.signal(signal.SIGCONT)
        resources.callback(self.start)


class Real:
    """A real broker with a door of its own for the trainer and for the scorer, each behind a proxy."""

    def __init__(self, resources: ExitStack) -> None:
        brokers.skip_without_real_broker()
        self.to_trainer, self.to_scorer = (resources.enter_context(Proxy()) for _ in range(2))
        self.broker = brokers.RealBroker()
        doors = self.broker.add_doors({"TRAINER": self.to_trainer.port, "SCORER": self.to_scorer.port})
        self.to_trainer.target, self.to_scorer.target = doors["TRAINER"], doors["SCORER"]
        self.broker.start()
        resources.callback(self.broker.remove)
        self.bootstrap = self.broker.bootstrap
        self.trainer = {"TIDEMILL_KAFKA_BOOTSTRAP": f"127.0.0.1:{self.to_trainer.port}"}
        self.scorer = {"TIDEMILL_KAFKA_BOOTSTRAP": f"127.0.0.1:{self.to_scorer.port}"}
        self.stop, self.start = self.broker.kill, self.broker.start
        self.admin: Any = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})


def _url(way: Proxy) -> str:
    return f"redis://127.0.0.1:{way.port}/0"


@pytest.fixture(scope="module", params=[Mock, Real], ids=["mock", "real"])
def running(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with ExitStack() as resources:
        yield Running(tmp_path_factory.mktemp("neighbours"), request.param(resources), resources)


@pytest.fixture
def real(running: Running) -> Real:
    if not isinstance(running.kafka, Real):
        pytest.skip("the mock cluster cannot do that")
    return running.kafka


# -- Redis -----------------------------------------------------------------------------------------------------------


def test_redis_is_stopped_and_started(running: Running) -> None:
    running.redis.kill()
    running.act(100)
    running.says(running.trainer, "redis", "lease")
    running.says(running.scorer, "redis", "lists")
    running.redis.start()
    running.exact()


def test_an_idle_installation_says_too_that_redis_is_away(running: Running) -> None:
    running.redis.kill()
    running.says(running.trainer, "redis", "lease")
    running.says(running.scorer, "redis", "lists")
    running.redis.start()
    running.exact()


def _replica(running: Running) -> tuple[RedisServer, Proxy]:
    """A replica of the Redis there is, in step with it, and the way by which it is."""
    way = running._resources.enter_context(Proxy(running.redis.port))
    replica = running.new_redis("--replicaof", "127.0.0.1", str(way.port), "--repl-timeout", "600")

    def in_step() -> bool:
        return bool(running.world.redis.call("WAIT", 1, 100) == 1)

    until(in_step, 20, "the replica in step")
    return replica, way


def _promote(replica: RedisServer) -> None:
    with replica.client() as client:
        client.call("REPLICAOF", "NO", "ONE")


def test_redis_fails_over_and_loses_what_was_not_replicated(running: Running) -> None:
    replica, way = _replica(running)
    way.go_silent()
    running.act(100)
    running.exact()  # and none of it is on the replica; nothing more will happen that would bring it there
    running.redis.kill()
    running.says(running.trainer, "redis")
    running.says(running.scorer, "redis")
    _promote(replica)
    running.redis_is(replica)
    running.exact()
    restored = running.world.metric(running.scorer, "histories_restored_total")
    assert restored is not None
    assert restored >= 1
    running.act(20)
    running.exact()


def test_redis_fails_over_and_the_scorer_dies_with_it(running: Running) -> None:
    replica, way = _replica(running)
    way.go_silent()
    running.act(100)
    running.exact()
    running.redis.kill()
    running.world.kill(running.scorer)
    _promote(replica)
    running.redis_is(replica)
    running.scorer = running.start_scorer()
    running.exact()


def test_redis_is_full(running: Running) -> None:
    running.world.redis.call("CONFIG", "SET", "maxmemory", "1mb")
    running.act(100)
    running.says(running.trainer, "redis")
    running.says(running.scorer, "lists")
    assert "maxmemory" in running.world.health(running.scorer)[1]["lists"]
    for _ in range(20):  # it goes on saying so
        assert running.world.health(running.scorer)[0] == 503
        assert running.world.health(running.trainer)[0] == 503
        time.sleep(0.05)
    running.world.redis.call("CONFIG", "SET", "maxmemory", "0")
    running.exact()


def test_everything_is_slow(running: Running) -> None:
    ways = [running.trainer_redis, running.scorer_redis]
    if isinstance(running.kafka, Real):
        ways += [running.kafka.to_trainer, running.kafka.to_scorer]
    for way in ways:
        way.delay_s = 0.2

    def took() -> float:
        return running.world.metric(running.scorer, "event_to_recommendation_seconds_sum", stage="history") or 0.0

    before = took()
    running.act(50)
    running.exact()
    # it shows: no history is stored without a round trip. Soon: lists are there before their writer has the answer
    until(lambda: took() - before > 50 * 0.4, 10, "the delay is measured")
    for way in ways:
        way.delay_s = 0.0
    running.act(10)
    running.exact()


# -- the network -----------------------------------------------------------------------------------------------------


def _cut(way: Proxy) -> Callable[[], None]:
    way.cut()
    return way.heal


def _silence(way: Proxy) -> Callable[[], None]:
    way.go_silent()
    return way.heal


def _forget(way: Proxy) -> Callable[[], None]:
    way.go_silent()
    return lambda: way.heal(forget=True)


@pytest.mark.parametrize("break_", [_cut, _forget])
def test_trainer_and_redis_are_parted(running: Running, break_: Callable[[Proxy], Callable[[], None]]) -> None:
    heal = break_(running.trainer_redis)
    running.act(50)
    running.says(running.trainer, "lease")
    until(running.listed, 30, "the scorer goes on")
    heal()
    running.exact()


@pytest.mark.parametrize("break_", [_cut, _silence])
def test_scorer_and_redis_are_parted(running: Running, break_: Callable[[Proxy], Callable[[], None]]) -> None:
    heal = break_(running.scorer_redis)
    running.act(50)
    running.says(running.scorer, "lists")
    until(running.learned, 30, "the trainer goes on")
    heal()
    running.exact()


@pytest.mark.parametrize("break_", [_cut, _forget])
def test_trainer_and_kafka_are_parted(
    running: Running, real: Real, break_: Callable[[Proxy], Callable[[], None]]
) -> None:
    heal = break_(real.to_trainer)
    running.act(50)
    running.says(running.trainer, "kafka")
    until(running.listed, 30, "the scorer goes on")
    heal()
    running.exact()


@pytest.mark.parametrize("break_", [_cut, _silence, _forget])
def test_scorer_and_kafka_are_parted(
    running: Running, real: Real, break_: Callable[[Proxy], Callable[[], None]]
) -> None:
    heal = break_(real.to_scorer)
    running.act(50)
    running.says(running.scorer, "kafka")
    until(running.learned, 30, "the trainer goes on")
    heal()
    running.exact()


# -- Kafka -----------------------------------------------------------------------------------------------------------


def test_kafka_is_stopped_and_started(running: Running) -> None:
    """A real broker is killed; the mock cluster would come back empty, so it is frozen."""
    running.kafka.stop()
    running.act(50, flush=False)
    running.says(running.trainer, "kafka")
    running.says(running.scorer, "kafka")
    running.kafka.start()
    running.world.flush()
    running.exact()


def test_partitions_are_added(running: Running, real: Real) -> None:
    real.admin.create_partitions([NewPartitions("events", 6)])["events"].result()

    def used() -> bool:
        running.act(20)
        return {"4", "5"} <= running.world.ends.keys()

    until(used, 20, "events in the new partitions")
    running.exact()


def test_records_expire_before_the_trainer_has_read_them(running: Running, real: Real) -> None:
    running.trainer.terminate()
    assert running.trainer.wait(60) == 0
    before = dict(running.world.ends)
    running.act(100)
    until(running.listed, 30, "the scorer has read them")
    gone = {number: (end + running.world.ends[number]) // 2 for number, end in before.items()}
    expired = sum(gone[number] - before[number] for number in gone)
    assert expired > 20
    deletions = real.admin.delete_records([TopicPartition("events", int(p), offset) for p, offset in gone.items()])
    for future in deletions.values():
        future.result()
    running.learnable -= expired
    running.trainer = running.start_trainer()
    running.exact()
    assert running.world.metric(running.trainer, "events_expired_total", topic="events") == expired
    assert running.world.metric(running.trainer, "events_trained_total") == 100 - expired
    lag = {"topic": "events"}
    until(lambda: running.world.metric(running.trainer, "consumer_lag_events", **lag) == 0, 5, "no lag is left")
    assert "the broker had deleted" in running.world.log("trainer")


def _refused(running: Running, why: str) -> None:
    """Both end, and say why and what to do."""
    for name, process in (("trainer", running.trainer), ("scorer", running.scorer)):
        assert process.wait(60) == 1
        last = running.world.log(name).strip().splitlines()[-1]
        assert last.startswith("tidemill: Kafka was changed under this ")
        assert why in last
        assert "--fresh" in last


def test_a_topic_made_anew_is_refused_until_it_is_decided(running: Running, real: Real) -> None:
    real.admin.delete_topics(["events"], operation_timeout=10)["events"].result()
    real.admin.create_topics([NewTopic("events", 6, 1)])["events"].result()
    running.world.new_producer()
    running.world.ends.clear()
    running.learnable = 0
    running.act(600)  # the new log is longer than the old one was: its offsets alone would not show it
    _refused(running, "topic events was made anew")
    running.trainer, running.scorer = running.start_trainer(), running.start_scorer()
    assert running.trainer.wait(60) == 1
    running.says(running.scorer, "kafka")
    assert "waiting until the trainer has begun anew" in running.world.health(running.scorer)[1]["kafka"]
    running.trainer = running.start_trainer(TIDEMILL_FRESH="1")
    running.exact()


def test_another_cluster_at_the_same_address_is_refused(running: Running, real: Real) -> None:
    real.broker.kill()
    running.says(running.trainer, "kafka")
    real.broker.forget_everything()
    real.broker.start()
    _refused(running, "this is Kafka cluster ")
