"""What a trainer and a scorer say of reading, on a broker with transactions and an authorizer."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import OffsetSpec as _OffsetSpec  # type: ignore[attr-defined]  # not in its `__all__`

from consumers.topics import prepare_topics
from service.local import embedded_redis
from tests import brokers
from tests.consumers.acls import AUTHORIZER, Acls
from tests.integration.world import World, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    broker = brokers.new_real_broker(*AUTHORIZER)
    yield broker.bootstrap
    broker.remove()


class Shop:
    """Topics and a group of its own, and the processes that read them."""

    def __init__(self, world: World, bootstrap: str) -> None:
        self.world, self.bootstrap = world, bootstrap
        self.events, self.items = brokers.unique_topic("events"), brokers.unique_topic("items")
        self.group = f"scorers-{self.events}"
        self.settings = {
            "TIDEMILL_THREADS": "1",
            "TIDEMILL_EVENTS_TOPIC": self.events,
            "TIDEMILL_ITEMS_TOPIC": self.items,
            "TIDEMILL_CONSUMER_GROUP": self.group,
        }
        prepare_topics(bootstrap, self.events, self.items)
        self.acls = Acls(bootstrap)

    def start(self, command: str) -> "subprocess.Popen[bytes]":
        return self.world.start(command, **self.settings)

    def transact(self, events: int, commit: bool) -> None:
        settings = {"bootstrap.servers": self.bootstrap, "partitioner": "murmur2_random", "log_level": 0}
        producer = Producer(settings | {"transactional.id": self.events})
        producer.init_transactions(30)
        producer.begin_transaction()
        for number in range(events):
            user = f"u{number % 7}"
            event = {"user_id": user, "item_id": f"i{number % 11}", "type": "click", "ts": int(time.time() * 1000)}
            producer.produce(self.events, orjson.dumps(event), user.encode())
        producer.flush(30)  # an abort drops what has not been sent
        producer.commit_transaction(30) if commit else producer.abort_transaction(30)

    def ends(self) -> dict[str, int]:
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        latest = _OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = {KafkaPartition(self.events, partition): latest for partition in range(4)}
        found = {str(p.partition): answer.result().offset for p, answer in admin.list_offsets(asked).items()}
        return {partition: end for partition, end in found.items() if end}

    def wait_learned(self, events: int) -> None:
        """Until the live version has learned so many, and come to the ends of the partitions."""
        wanted = self.ends()

        def learned() -> bool:
            live = self.world.live()
            return live is not None and live["trained_through"].get(self.events) == wanted

        until(learned, 30, "offsets reach the ends of the partitions")
        live = self.world.live()
        assert live is not None
        assert live["events_trained"] == events

    def wait_says(self, process: "subprocess.Popen[bytes]", *texts: str) -> None:
        def says() -> bool:
            status, checks = self.world.health(process)
            return status == 503 and all(text in checks.get("kafka", "") for text in texts)

        until(says, 20, f"{texts} in /health")

    def wait_well(self, process: "subprocess.Popen[bytes]") -> None:
        until(lambda: self.world.health(process)[0] == 200, 20, "all is well")


@pytest.fixture
def shop(bootstrap: str, tmp_path: Path) -> Iterator[Shop]:
    with embedded_redis() as url:
        world = World(bootstrap, url, tmp_path)
        try:
            yield Shop(world, bootstrap)
        finally:
            world.close()


def test_behind_a_transactional_producer_nothing_is_left_and_versions_can_be_verified(shop: Shop) -> None:
    world, processes = shop.world, [shop.start("trainer"), shop.start("scorer")]
    for commit in (True, False, True, False):
        shop.transact(40, commit)
    assert sum(shop.ends().values()) > 4 * 40  # the marks, too
    shop.wait_learned(80)
    for process in processes:
        shop.wait_well(process)

        def no_lag(process: "subprocess.Popen[bytes]" = process) -> bool:
            return world.metric(process, "consumer_lag_events") == world.metric(process, "consumer_lag_seconds") == 0

        until(no_lag, 10, "no lag")
    for arguments in (["verify"], ["verify", "--from", "0"]):
        done = world.run(*arguments, **shop.settings)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_topics_that_may_be_described_and_not_read_are_named_by_both(shop: Shop) -> None:
    for operation in ("DESCRIBE", "WRITE"):
        shop.acls.allow("TOPIC", shop.events, operation)
    shop.transact(60, commit=True)
    processes = [shop.start("trainer"), shop.start("scorer")]
    for process in processes:
        shop.wait_says(process, f"{shop.events}-", "Topic authorization failed")
    shop.acls.allow("TOPIC", shop.events, "READ")
    shop.wait_learned(60)
    for process in processes:
        shop.wait_well(process)
    until(lambda: shop.world.recs("u6"), 20, "a list")


def test_a_group_that_is_denied_is_named(shop: Shop) -> None:
    shop.acls.allow("GROUP", shop.group, "DESCRIBE")
    scorer = shop.start("scorer")
    shop.wait_says(scorer, f"group {shop.group}", "Group authorization failed")
    shop.start("trainer")
    shop.acls.allow("GROUP", shop.group, "READ")
    shop.wait_well(scorer)
