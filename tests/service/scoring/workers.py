"""Scorers that tests turn by hand, over a log in memory, a store of small real models, and Redis."""

import threading
from collections.abc import Callable
from typing import Any

from consumers.decode import DecodeRules
from consumers.memory_source import MemoryLog, MemorySource
from consumers.records import Record
from consumers.times import now_ms
from model_store.memory_store import MemoryStore
from model_store.redis_connection import RedisConnection
from service.health import Health
from service.metrics import ScorerMetrics
from service.model.config import HistoryConfig
from service.scoring.blocked_items import BlockedItems
from service.scoring.list_store import ListStore
from service.scoring.reloader import Reloader
from service.scoring.scorer import Scorer
from service.scoring.sweeper import Sweeper
from service.settings import ScorerSettings
from tests.consumers.samples import event_json, item_json
from tests.service.scoring.worlds import Trainer, body_of, items_of

ITEMS = [f"i{n}" for n in range(60)]


TURN_S = 0.02  # of one turn of a scorer


class Clock:
    """The time in seconds, which stands still until a test puts it forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


class Impatient(MemorySource):
    """Does not wait for records that are not there."""

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        return super().poll(max_records, 0.0)


class World:
    """A log, a store of models with one live version, and Redis; scorers come and go."""

    def __init__(self, connection: RedisConnection, *, learned: bool = True) -> None:
        self.redis = connection
        self.log = MemoryLog()
        self.log.create("events", 2)
        self.log.create("items", 1)
        self.models = MemoryStore()
        self.trainer = Trainer(self.models)
        if learned:
            self.trainer.learn_much()
        self.trainer.publish()
        self.other_kafka: str | None = None  # why it is another one, once it is

    def act(self, user: str, item: str, partition: int = 0, **fields: Any) -> None:
        value = event_json(user_id=user, item_id=item, **fields)
        self.log.append("events", value, user.encode(), partition, now_ms())

    def item(self, item: str, **fields: Any) -> None:
        self.log.append("items", item_json(item_id=item, **fields), item.encode(), 0)

    def delete(self, item: str) -> None:
        self.log.append("items", None, item.encode(), 0)


def in_redis(connection: RedisConnection) -> dict[bytes, bytes]:
    """Everything that is there, to `go_back` to."""
    return {key: connection.call("DUMP", key) for key in connection.call("KEYS", "*")}


def go_back(connection: RedisConnection, then: dict[bytes, bytes]) -> None:
    """Redis as it was, as after a failover that lost what was not replicated."""
    connection.call("FLUSHALL")
    for key, dump in then.items():
        connection.call("RESTORE", key, 0, dump)


class Worker:
    """A scorer with all it needs, started and turned by hand."""

    def __init__(
        self,
        world: World,
        *,
        items_source: MemorySource | None = None,
        log_name: str = "",
        live_history: HistoryConfig | None = None,
        clock: Callable[[], float] | None = None,
        **settings: Any,
    ) -> None:
        chosen = {"window_ms": 0, "refresh_interval_ms": 0, "top_k": 10, "list_budget": 1.0, **settings}
        self.metrics, self.health, self.stop = ScorerMetrics(), Health("scorer"), threading.Event()
        self.clock = Clock()
        self.lists = ListStore(world.redis, "t", recs_ttl_s=100, history_ttl_s=100, log_name=log_name)
        self.sweeper = Sweeper(self.lists, self.metrics)
        self.reloader = Reloader(world.models, poll_s=1, device="cpu", metrics=self.metrics, health=self.health)
        self.source = Impatient(world.log, "group")
        self.scorer = Scorer(
            self.source,
            BlockedItems(items_source or Impatient(world.log), "items", DecodeRules()),
            self.reloader,
            self.lists,
            self.sweeper,
            ScorerSettings(**chosen),
            metrics=self.metrics,
            health=self.health,
            stop=self.stop,
            live_history=live_history,
            other_kafka=lambda: world.other_kafka,
            clock=clock or self.clock,
        )
        self.reloader.check()

    def turn(self, times: int = 3) -> "Worker":
        for _ in range(times):
            self.scorer.turn()
            self.clock.pass_by(TURN_S)
        return self

    def until(self, reached: Callable[[], object]) -> None:
        for _ in range(1000):
            if reached():
                return
            self.turn(1)
        raise AssertionError(f"not reached in {1000 * TURN_S:.0f} s")

    def body(self, user: str) -> Any:
        return body_of(self.lists.read_list(user))

    def items(self, user: str) -> list[str]:
        return items_of(self.lists.read_list(user))

    def seen(self, user: str) -> int:
        return self.lists.histories([user])[user].history.events_seen

    def count(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"tidemill_{name}", labels)


def started(world: World, **options: Any) -> Worker:
    """One that has read the topic of items and may be given partitions."""
    worker = Worker(world, **options)
    worker.scorer.start()
    return worker
