"""Small real models in a store in memory, and lists to look at."""

import copy
import dataclasses
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consumers.micro_batch import ItemChange
from model_store.codec import encode
from model_store.memory_store import MemoryStore
from model_store.version import BatchRecord, KafkaIds, Manifest, timestamp
from model_store.weights import Update
from service.model.config import ModelConfig
from service.model.recommender import Recommender
from service.training.learner import Learner
from tests.service.model.configs import LOGARITHMS, ranked
from tests.service.training.streams import micro_batch, random_events


def configured(**fields: Any) -> ModelConfig:
    """A small new model, which lists every item there is; with other values for fields of its sections."""
    config = ranked(length=20, **fields)
    assert config.ranker is not None
    return dataclasses.replace(config, ranker=config.ranker.model_copy(update={"candidates": 200}))


CONFIG = configured()


class Trainer:
    """Learns random events and publishes each time it is asked to."""

    def __init__(self, store: MemoryStore, seed: int = 0) -> None:
        self.store = store
        self.learner = Learner(CONFIG, evaluate_sample=0)
        self.version = 0
        self.parent: int | None = None
        self._seed = seed
        lease = store.acquire("trainer", 1e6)
        assert lease is not None
        self._lease = lease

    def learn(self, n: int = 100, items: int = 60, catalogue: tuple[ItemChange, ...] = ()) -> None:
        self._seed += 1
        events = random_events(n, self._seed, items=items)
        self.learner.learn(micro_batch(events, first_key=1 + self._seed * 10_000, catalogue=catalogue))

    def learn_much(self) -> None:
        """600 events, the same each time: they are learned once for all tests."""
        self._seed += 1
        self.learner = copy.deepcopy(_much_learned())

    def publish(self, *, snapshot: bool = False, through: int = 0, live: bool = True) -> Manifest:
        update = self.learner.drain()
        full = snapshot or self.parent is None
        batches = (BatchRecord(ranges=(("events", 0, 0, through),)),)
        return self._publish(self.learner.snapshot() if full else update, through, batches, live)

    def repeat(self, *, through: int = 0, live: bool = True) -> Manifest:
        """A snapshot of the version before, written out whole. Nothing may have been learned since."""
        return self._publish(self.learner.snapshot(), through, (), live)

    def step(self, *, snapshot: bool = False, through: int = 0) -> Manifest:
        self.learn()
        return self.publish(snapshot=snapshot, through=through)

    def asked_for_snapshot(self) -> str | None:
        """Why a reader has asked for one, said once."""
        return self.store.take_snapshot_request(self._lease)

    def _publish(self, update: Update, through: int, batches: tuple[BatchRecord, ...], live: bool) -> Manifest:
        version = self.version + 1
        manifest = Manifest(
            version=version,
            parent=self.parent,
            kind="snapshot" if update.full else "delta",
            created_at=timestamp(1e9 + version),
            run_id="test",
            kafka=KafkaIds(cluster_id="test"),
            trained_through={"events": {"0": through}},
            events_trained=0,
            batches=batches,
            config_digest="test",
            config=self.learner.config.to_json(),
            blobs=self.store.put_blobs(encode(update, logarithms=LOGARITHMS)),
        )
        self.store.publish(manifest, self._lease)
        self.version = self.parent = version
        if live:
            self.store.move(version, "test", lease=self._lease)
        return manifest


@cache
def _much_learned() -> Learner:
    trainer = Trainer(MemoryStore())
    trainer.learn(600)
    return trainer.learner


def scores(recommender: Recommender) -> NDArray[np.float32]:
    """[2, 8, C] the lists of eight random histories: rows and scores of all candidates."""
    rng = np.random.default_rng(1)
    histories = rng.integers(-1, recommender.size, size=(8, recommender.history_length))
    rows, values = recommender.top_k(histories.astype(np.int64), recommender.size)
    return np.stack([rows.astype(np.float32), values])


def items_of(raw: bytes | None) -> list[str]:
    assert raw is not None
    return [item["item_id"] for item in json.loads(raw)["items"]]


def body_of(raw: bytes | None) -> Mapping[str, Any]:
    assert raw is not None
    body: Mapping[str, Any] = json.loads(raw)
    return body
