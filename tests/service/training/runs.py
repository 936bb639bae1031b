"""A trainer with a store in memory and a feeder that says what it is told to."""

import dataclasses
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import cast

from consumers.channel import FeederDied, FeederStatus
from consumers.feeder import Feeder
from consumers.micro_batch import MicroBatch
from consumers.recorded import EventsGone
from consumers.records import OffsetRange, Offsets
from model_store.lease import Lease, LeaseKeeper
from model_store.memory_store import MemoryStore
from model_store.version import BatchRecord, KafkaIds, Manifest
from service.health import Health
from service.metrics import TrainerMetrics
from service.training.configuration import config_digest, environment, told
from service.training.learner import LearnerConfig
from service.training.publisher import Candidate, Origin, Publisher, PublisherRules
from service.training.rebuild import OpenReader, ReadBatch
from service.training.reference import Reference
from service.training.resume import begin
from service.training.trainer import Trainer
from tests.service.training.streams import TYPES, micro_batch, random_events

CONFIG = LearnerConfig(
    dim=8, hidden=16, history=5, negatives=16, replay_capacity=200, replay_recent=50, half_lives=(50.0, 500.0)
)
DIGEST = config_digest(CONFIG, TYPES)
KAFKA = KafkaIds(cluster_id="cluster", topics={"events": "first"})
ORIGIN = Origin("run", KAFKA, DIGEST, told(CONFIG, TYPES), environment("cpu"))
RULES = PublisherRules(
    interval_s=0.0, snapshot_interval_s=3600.0, chain_limit=100, chain_bytes_ratio=4.0, keep_snapshots=3, grace_s=60.0
)
Step = MicroBatch | FeederStatus | FeederDied | Callable[[], None]


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


def remembered(*batches: MicroBatch) -> OpenReader:
    """Kafka for whoever learns again: what was fed, by its ranges."""
    by_ranges = {tuple((r.topic, r.partition, r.start, r.end) for r in batch.ranges): batch for batch in batches}

    def open_reader(manifests: Sequence[Manifest]) -> ReadBatch:
        def read(record: BatchRecord) -> MicroBatch:
            if (batch := by_ranges.get(record.ranges)) is None:
                raise EventsGone(f"{record.ranges} have expired")
            return batch

        return read

    return open_reader


class FakeFeeder:
    """Hands over one step after the other, each once the one before is published; then stops the trainer."""

    def __init__(self, steps: Iterable[Step], publisher: Publisher, stop: threading.Event) -> None:
        self._steps, self._publisher, self._stop = iter(steps), publisher, stop
        self.commits: list[dict[object, int]] = []
        self.stopped = False

    def receive(self, timeout_s: float) -> MicroBatch | FeederStatus | None:
        assert not self.stopped
        self._publisher.wait_idle(5.0)
        step = next(self._steps, None)
        if step is None:
            self._stop.set()
            return None
        if isinstance(step, FeederDied):
            raise step
        if isinstance(step, MicroBatch | FeederStatus):
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
        config: LearnerConfig = CONFIG,
        replay: int = 1,
        log: OpenReader | None = None,
    ) -> None:
        """log: where events can be read again."""
        self.store, self.lease = store, hold(store)
        self.metrics, self.health, self.stop = TrainerMetrics(), Health("trainer"), threading.Event()
        self.keeper = LeaseKeeper(store, self.lease, 3600.0)
        self.beginning = begin(store, config, ORIGIN, log or remembered(), fresh=fresh, metrics=self.metrics)
        self.learner, self.progress = self.beginning.learner, self.beginning.progress
        self.publisher = Publisher(
            store,
            self.lease,
            rules,
            ORIGIN,
            self.beginning.standing,
            Reference(self.learner.recommender),
            metrics=self.metrics,
            health=self.health,
        )
        self.feeders: list[FakeFeeder] = []
        self.started_at: list[dict[object, int]] = []
        self._replay = replay

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
            event_types=TYPES,
            events_topic="events",
            batch_events=1000,
            replay=self._replay,
            metrics=self.metrics,
            health=self.health,
            stop=self.stop,
        )
        self.publisher.start()
        try:
            if self.beginning.standing.parent is None:
                self.publisher.submit(Candidate(self.learner.snapshot(), (), {}, 0, {}))
                self.learner.drain()
                self.publisher.wait_idle(5.0)
            trainer.run()
        finally:
            self.publisher.stop()
        return self

    def metric(self, name: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(f"tidemill_{name}", labels)
        assert value is not None, name
        return value


def manifests(store: MemoryStore) -> list[Manifest]:
    found = [Manifest.from_json(data) for data in store.manifest_bytes(store.versions()) if data is not None]
    assert [manifest.version for manifest in found] == store.versions()
    return found
