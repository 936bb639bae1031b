"""A trainer with a store in memory and a feeder that says what it is told to."""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import numpy as np

from consumers.dead_letters import MemoryDeadLetters
from consumers.feeder_process import Feeder
from consumers.letters import Refused
from consumers.micro_batch import MicroBatch
from consumers.pipe import FeederDied, FeederStatus, Received
from consumers.recorded import EventsGone
from consumers.records import OffsetRange, Offsets
from consumers.shelf import MemoryShelf, Shelf
from model_store.codec import decode, encode
from model_store.lease import Lease, LeaseKeeper
from model_store.memory_store import MemoryStore
from model_store.version import BatchRecord, KafkaIds, Manifest
from model_store.weights import Array, Rows, Update
from service.health import Health
from service.metrics import TrainerMetrics
from service.model.config import ModelConfig
from service.training.configuration import config_digest, config_of, environment
from service.training.publishing.publisher import Publisher
from service.training.publishing.rules import PublisherRules
from service.training.publishing.submission import Origin, Submission
from service.training.reference import Reference
from service.training.refused_letters import RefusedLetters
from service.training.restart.rebuild import OpenReader, ReadBatch
from service.training.restart.resume import begin
from service.training.restart.verify import Proof, route_to, verify
from service.training.trainer import Trainer
from tests.service.model.configs import LOGARITHMS, ranked
from tests.service.training.streams import TYPES, micro_batch, random_events


def configured(**fields: Any) -> ModelConfig:
    """A new model with every channel, so that every table and tensor there is takes part."""
    return ranked(network=True, **({"negatives": 16} | fields))


CONFIG = configured()
DIGEST = config_digest(CONFIG)
KAFKA = KafkaIds(cluster_id="cluster", topics={"events": "first"})
RULES = PublisherRules(
    interval_s=0.0, snapshot_interval_s=3600.0, chain_limit=100, chain_bytes_ratio=4.0, keep_snapshots=3, grace_s=60.0
)


def origin_of(config: ModelConfig, **other: str | int) -> Origin:
    """other: what is not as here in the environment."""
    return Origin.of("run", KAFKA, config, environment("cpu") | other)


ORIGIN = origin_of(CONFIG)
Step = MicroBatch | FeederStatus | Refused | FeederDied | Callable[[], None]


def batches(n: int, *, first: int = 0, size: int = 20, seed: int = 0) -> list[MicroBatch]:
    """`n` batches of a stream that begins at offset 0, from batch `first` on."""
    events = random_events(400, seed)
    assert (first + n) * size <= len(events)
    return [
        dataclasses.replace(
            micro_batch(events[at : at + size], first_key=at + 1),
            ranges=(OffsetRange("events", 0, at, at + size),),
        )
        for at in range(first * size, (first + n) * size, size)
    ]


def rejects(start: int, end: int) -> MicroBatch:
    """A batch of nothing but rejects."""
    ranges = (OffsetRange("events", 0, start, end),)
    return dataclasses.replace(micro_batch([]), ranges=ranges, rejected={"not json": end - start})


def remembered(*batches: MicroBatch, types: Sequence[str] = TYPES) -> OpenReader:
    """Kafka for whoever learns again: what was fed, by its ranges; event types numbered as in `types`."""
    place = {name: number for number, name in enumerate(types)}
    number = np.array([place.get(name, -1) for name in TYPES], np.int16)  # -1: not accepted, so not in any batch
    by_ranges = {tuple((r.topic, r.partition, r.start, r.end) for r in batch.ranges): batch for batch in batches}

    def open_reader(manifests: Sequence[Manifest]) -> ReadBatch:
        def read(record: BatchRecord) -> MicroBatch:
            if (batch := by_ranges.get(record.ranges)) is None:
                raise EventsGone(f"{record.ranges} have expired")
            return dataclasses.replace(batch, type=number[batch.type])

        return read

    return open_reader


def prove(store: MemoryStore, version: int, fed: Sequence[MicroBatch], start: int | None = None) -> Proof:
    """As `tidemill verify VERSION [--from START]`, with what was fed for Kafka."""
    chosen = route_to(store, version, start)
    types = list(config_of(chosen.version).history.event_weights)
    return verify(store, chosen, remembered(*fed, types=types)(chosen.manifests), "cpu")


class FakeFeeder:
    """Hands over one step after the other, each once the one before is published; then stops the trainer."""

    patience_s = 5.0  # for a version, before the next step

    def __init__(self, steps: Iterable[Step], publisher: Publisher, stop: threading.Event) -> None:
        self._steps, self._publisher, self._stop = iter(steps), publisher, stop
        self.commits: list[dict[object, int]] = []
        self.stopped = False

    def receive(self, timeout_s: float) -> Received | None:
        assert not self.stopped
        self._publisher.wait_idle(self.patience_s)
        step = next(self._steps, None)
        if step is None:
            self._stop.set()
            return None
        if isinstance(step, FeederDied):
            raise step
        if isinstance(step, MicroBatch | FeederStatus | Refused):
            return step
        step()
        return None

    def commit(self, offsets: Offsets) -> None:
        self.commits.append(dict(offsets))

    def stop(self, timeout_s: float = 5.0) -> None:
        self.stopped = True


def hold(store: MemoryStore) -> Lease:
    """A lease, also where an earlier trainer has not given its own back."""
    store._holder = None
    lease = store.acquire("a trainer", 3600.0)
    assert lease is not None
    return lease


class Run:
    """One life of a trainer, begun as `tidemill trainer` begins it."""

    def __init__(
        self,
        store: MemoryStore,
        *,
        fresh: bool = False,
        rules: PublisherRules = RULES,
        config: ModelConfig = CONFIG,
        replay: int = 1,
        log: OpenReader | None = None,
        other_kafka: Callable[[], str | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        shelf: Shelf | None = None,
        **environment: str | int,
    ) -> None:
        """log: where events can be read again. environment: what differs from here."""
        origin = origin_of(config, **environment)
        self.store, self.lease = store, hold(store)
        self.metrics, self.health, self.stop = TrainerMetrics(), Health("trainer"), threading.Event()
        self.keeper = LeaseKeeper(store, self.lease, 3600.0)
        self.beginning = begin(store, config, "cpu", origin, log or remembered(), fresh=fresh, metrics=self.metrics)
        self.learner, self.progress = self.beginning.learner, self.beginning.progress
        self.publisher = Publisher(
            store,
            self.lease,
            rules,
            self.beginning.origin,
            self.beginning.standing,
            Reference(self.learner.recommender),
            metrics=self.metrics,
            health=self.health,
        )
        self.shelf = shelf or MemoryShelf()
        self.refused = RefusedLetters(
            self.shelf, ("events",), MemoryDeadLetters, metrics=self.metrics, health=self.health
        )
        self.feeders: list[FakeFeeder] = []
        self.started_at: list[dict[object, int]] = []
        self._replay, self._other_kafka, self._clock = replay, other_kafka, clock

    def go(self, *lives: Sequence[Step]) -> "Run":
        """Runs until the last step; each life is what one feeder hands over."""
        waiting = iter(lives)

        def start(offsets: Offsets) -> Feeder:
            self.started_at.append(dict(offsets))
            self.feeders.append(FakeFeeder(next(waiting), self.publisher, self.stop))
            return cast(Feeder, self.feeders[-1])

        trainer = Trainer(
            self.learner,
            self.progress,
            self.publisher,
            self.keeper,
            start,
            self.refused,
            event_types=TYPES,
            batch_events=1000,
            replay=self._replay,
            metrics=self.metrics,
            health=self.health,
            stop=self.stop,
            other_kafka=self._other_kafka,
            clock=self._clock,
        )
        self.publisher.start()
        self.refused.start()
        try:
            if self.beginning.standing.parent is None:
                self.publisher.submit(Submission(self.learner.snapshot(), (), {}, 0, {}))
                self.learner.drain()
                self.publisher.wait_idle(5.0)
            trainer.run()
        finally:
            self.refused.stop()
            self.publisher.stop()
        return self

    def metric(self, name: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(f"tidemill_{name}", labels)
        assert value is not None, name
        return value


class Killed(Exception):
    """What a trainer's step raises where it is killed: nothing more is published."""


def kill() -> None:
    raise Killed


def doctor(store: MemoryStore, version: int, name: str, row: int = 0) -> None:
    """Changes the lowest bit of a row (of a tensor's entry) in what a version brings, and every checksum with it."""
    manifest = store.manifest(version)
    blobs = {blob: store.get_blobs([ref])[0] or b"" for blob, ref in manifest.blobs.items()}
    update = decode(blobs, full=manifest.kind == "snapshot")
    tables, tensors = dict(update.tables), dict(update.tensors)
    if name in tensors:
        tensors[name] = _flipped(tensors[name], row)
    else:
        rows = tables[name]
        at = rows.index.tolist().index(row)
        if isinstance(rows.values, list):
            values: Array | list[str] = [*rows.values[:at], rows.values[at] + "!", *rows.values[at + 1 :]]
        else:
            values = _flipped(rows.values, at)
        tables[name] = Rows(rows.index, values, rows.size)
    refs = store.put_blobs(encode(Update(update.full, tables, tensors), logarithms=LOGARITHMS))
    store.tamper(manifest=(version, manifest.model_copy(update={"blobs": refs}).to_json()))


def _flipped(values: Array, at: int) -> Array:
    changed = np.array(values)
    changed.reshape(-1).view(np.uint8)[at * changed[:1].nbytes] ^= 1
    return changed


def manifests(store: MemoryStore) -> list[Manifest]:
    found = [Manifest.from_json(data) for data in store.manifest_bytes(store.versions()) if data is not None]
    assert [manifest.version for manifest in found] == store.versions()
    return found
