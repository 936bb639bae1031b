"""A dead-letter topic that refuses letters keeps nothing from being learned, and gets them when it is mended."""

import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from consumers.kafka_source import KafkaSource
from consumers.records import Record
from service.local import embedded_redis
from tests import brokers
from tests.integration.world import World, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SHELF = "tidemill:dead:events"


def test_what_a_compacted_topic_refuses_waits_in_redis_and_is_delivered_when_the_topic_is_mended(
    tmp_path: Path,
) -> None:
    broker = brokers.new_real_broker()
    brokers.create_topic(broker.bootstrap, "events.dlq", 1, **{"cleanup.policy": "compact"})
    with embedded_redis() as url:
        world = World(broker.bootstrap, url, tmp_path)
        try:
            trainer = world.start("trainer")
            until(world.live, 60, "a version before the first event")
            world.send(b"junk")  # without a key, so that a compacted topic cannot keep it
            world.send(b"rubbish", key="u1")
            world.send({"user_id": "u1", "item_id": "i1", "type": "click", "ts": int(time.time() * 1000)})
            world.flush()
            live = until(world.learned_all, 20, "learning that goes on")
            assert live["events_trained"] == 1
            assert world.redis.call("XLEN", SHELF) == 1
            told = until(lambda: says(world, trainer), 10, "the reason in /health")
            assert "failed to validate record" in told
            assert world.metric(trainer, "dead_letters_shelved", topic="events") == 1
            world.kill(trainer)
            allow_deletion(broker.bootstrap, "events.dlq")
            trainer = world.start("trainer")
            until(lambda: world.redis.call("XLEN", SHELF) == 0, 60, "the letter off the shelf")
            until(lambda: world.health(trainer)[1].get("dead_letters") == "ok", 10, "a word that all is well")
            letters = until(lambda: read(broker.bootstrap, "events.dlq", 2), 10, "both letters")
            assert [(letter.key, letter.value) for letter in letters] == [(b"u1", b"rubbish"), (None, b"junk")]
        finally:
            world.close()
    broker.remove()


def says(world: World, trainer: Any) -> str | None:
    told = world.health(trainer)[1].get("dead_letters", "ok")
    return None if told == "ok" else told


def allow_deletion(bootstrap: str, topic: str) -> None:
    entry = ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result()


def read(bootstrap: str, topic: str, n: int) -> list[Record] | None:
    """The topic's records, once there are so many."""
    source = KafkaSource(bootstrap, "letters", refresh_s=0.1)
    source.assign({topic: {}})
    records: list[Record] = []
    end = time.monotonic() + 5
    while len(records) < n and time.monotonic() < end:
        records += source.poll(100, 0.1)
    source.close()
    return records if len(records) >= n else None
