"""Trainers with their publishers over a real Redis, side by side, over the same events; and what is timed of them."""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from consumers.dead_letters import MemoryDeadLetters
from consumers.events import DEFAULT_EVENT_WEIGHTS
from consumers.feeder_process import Feeder
from consumers.micro_batch import MicroBatch
from consumers.records import OffsetRange, Offsets
from consumers.shelf import MemoryShelf
from model_store.blob_folder import BlobFolder
from model_store.keys import Keys
from model_store.lease import Lease, LeaseKeeper
from model_store.redis_connection import RedisConnection
from model_store.redis_store import RedisStore
from model_store.version import KafkaIds, Manifest
from model_store.weights import TRAINER
from service.health import Health
from service.metrics import TrainerMetrics
from service.model.channel import Examples
from service.model.config import ModelConfig
from service.model.registry import NETWORK, NEW_MODEL
from service.training.configuration import config_digest, environment
from service.training.effort import Effort
from service.training.evaluation.prequential import Examined
from service.training.intake import Events
from service.training.learner import Learner
from service.training.progress import Progress
from service.training.publishing.publisher import Publisher
from service.training.publishing.rules import PublisherRules
from service.training.publishing.submission import Origin, Standing, Submission
from service.training.reference import Reference
from service.training.refused_letters import RefusedLetters
from service.training.trainer import Trainer
from tests.service.model.configs import network_of, popularity_of

ACTIVE = 10_000  # items, and users, of whom the events are
BATCH = 1_024  # events; with their histories and replayed ones they touch nearly all active items
TYPES = list(DEFAULT_EVENT_WEIGHTS)
PATIENCE_S = 600.0


@dataclass
class Version:
    kind: str
    checkpoint: bool
    submitted: float  # perf_counter
    began: float = 0.0  # its blobs were ready to be stored
    live: float = 0.0
    weights_bytes: int = 0
    all_bytes: int = 0


@dataclass
class Step:
    number: int
    began: float
    ended: float
    blocked: float  # seconds of it neither running nor waiting for a core: for the interpreter, that is


class TimedStore(RedisStore):
    """Notes of each version when it began, what it weighs and when it was live."""

    published: list[Version]
    submitted = 0.0

    def publish(self, manifest: Manifest, lease: Lease) -> None:
        super().publish(manifest, lease)
        sizes = {name: ref.bytes for name, ref in manifest.blobs.items()}
        self.published.append(
            Version(
                kind=manifest.kind,
                checkpoint=manifest.checkpoint,
                submitted=self.submitted,
                weights_bytes=sum(size for name, size in sizes.items() if not name.startswith(TRAINER)),
                all_bytes=sum(sizes.values()),
            )
        )

    def move(self, version: int, reason: str, *, alias: str = "champion", lease: Lease | None = None) -> bool:
        moved = super().move(version, reason, alias=alias, lease=lease)
        if alias == "champion":
            self.published[-1].live = self.submitted = time.perf_counter()
            if len(self.published) > 1:  # a snapshot begins where the delta before it was live
                self.published[-1].began = max(self.published[-1].submitted, self.published[-2].live)
        return moved


class TimedLearner(Learner):
    """Notes how long it evaluates."""

    ranked: list[float]

    def _examine(self, events: Events, effort: Effort, reference: Reference | None) -> Examined:
        began = time.perf_counter()
        found = super()._examine(events, effort, reference)
        self.ranked.append(time.perf_counter() - began)
        return found


class TimedTrainer(Trainer):
    """Notes how long its own thread is busy with handing over a version."""

    submits: list[float]
    store: TimedStore

    def _submit(self) -> None:
        began = time.perf_counter()
        self.store.submitted = began
        super()._submit()
        self.submits.append(time.perf_counter() - began)


def ran() -> float:
    """Seconds that this thread has been running, or waiting for a core because others had them all (on Linux)."""
    try:
        waiting = int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except FileNotFoundError:
        waiting = 0.0
    return time.thread_time() + waiting


class TimedPublisher(Publisher):
    """Publishes while it may."""

    may = True

    def ready(self) -> bool:
        return self.may and super().ready()


@dataclass
class Script:
    """A feeder that hands over batches and notes when the trainer comes back for the next."""

    batches: Iterator[MicroBatch]
    world: "World"
    alone: bool  # each batch waits until the version before is live
    until: float = 0.0  # perf_counter; the trainer goes on without batches until then
    handed: float = 0.0
    ran: float = 0.0

    def receive(self, timeout_s: float) -> MicroBatch | None:
        now = time.perf_counter()
        if self.handed:
            blocked = now - self.handed - (ran() - self.ran)
            self.world.steps.append(Step(self.world.learner.steps - 1, self.handed, now, blocked))
            self.handed = 0.0
        publisher = self.world.publisher
        if self.alone:
            if not publisher.idle:
                self._watch()
                return None
            if not publisher.ready():
                return None
        batch = next(self.batches, None)
        if batch is None:
            if now > self.until:
                self.world.stop.set()
            time.sleep(0.01)
            return None
        self.handed, self.ran = time.perf_counter(), ran()
        return batch

    def _watch(self) -> None:
        """Until the version is live, looking all the time: whoever holds the interpreter lets nobody look."""
        last = began = time.perf_counter()
        longest = 0.0
        if not self.world.probe:
            self.world.publisher.wait_idle(PATIENCE_S)
            return
        while not self.world.publisher.idle and last - began < PATIENCE_S:
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        longest = max(longest, time.perf_counter() - last)
        self.world.holds[self.world.store.published[-1].kind].append(longest * 1e3)

    def commit(self, offsets: Offsets) -> None: ...

    def stop(self, timeout_s: float = 5.0) -> None: ...


@dataclass
class World:
    """One trainer, and what was measured of it."""

    name: str
    items: int
    users: int
    folder: Path | None = None
    checkpoint_interval_s: float = 0.0
    steps: list[Step] = field(default_factory=list)
    holds: dict[str, list[float]] = field(default_factory=lambda: {"delta": [], "snapshot": []})
    probe: bool = False
    stop: threading.Event = field(default_factory=threading.Event)

    def begin(self, connection: RedisConnection, seed: int) -> None:
        config = replace(NEW_MODEL, channels={**NEW_MODEL.channels, "network": NETWORK})
        self.store = TimedStore(
            connection,
            Keys(model=self.name),
            folder=BlobFolder(self.folder.as_uri()) if self.folder is not None else None,
            linger=0,
        )
        self.store.published = []
        lease = self.store.acquire("bench", 3_600.0)
        assert lease is not None
        digest = config_digest(config)
        self.learner = filled(config, self.items, self.users, seed)
        self.publisher = TimedPublisher(
            self.store,
            lease,
            PublisherRules(0.15, 1e9, 10**9, 1e9, 1, 0.0, checkpoint_interval_s=self.checkpoint_interval_s),
            Origin("bench", KafkaIds(cluster_id="bench"), digest, config.to_json(), environment("cpu")),
            Standing(),
            Reference(self.learner.recommender),
            metrics=TrainerMetrics(),
            health=Health("trainer"),
        )
        self.publisher.start()
        self.store.submitted = time.perf_counter()
        self.publisher.submit(Submission(self.learner.snapshot(), (), {}, 0, {}))
        self.learner.drain()
        assert self.publisher.wait_idle(PATIENCE_S)
        assert self.publisher.failure is None, self.publisher.failure
        self.script: Script | None = None
        metrics, health = TrainerMetrics(), Health("trainer")
        self.trainer = TimedTrainer(
            self.learner,
            Progress(),
            self.publisher,
            LeaseKeeper(self.store, lease, 3_600.0),
            lambda _: cast(Feeder, self.script),
            RefusedLetters(MemoryShelf(), ("events",), MemoryDeadLetters, metrics=metrics, health=health),
            event_types=TYPES,
            batch_events=10**9,
            replay=1,
            metrics=metrics,
            health=health,
            stop=self.stop,
        )
        self.trainer.submits, self.trainer.store = [], self.store

    def go(self, batches: Iterable[MicroBatch], *, alone: bool, linger_s: float = 0.0) -> None:
        self.script = Script(iter(batches), self, alone, time.perf_counter() + linger_s)
        self.stop.clear()
        self.trainer.run()

    def forget(self) -> None:
        """What was measured so far."""
        self.steps.clear()
        self.trainer.submits.clear()
        self.learner.ranked.clear()
        del self.store.published[:-1]
        for holds in self.holds.values():
            holds.clear()

    def end(self) -> None:
        self.publisher.stop()


def spread(n: int, size: int) -> NDArray[np.int64]:
    """n rows of `size`, at even distances."""
    return np.arange(n, dtype=np.int64) * (size // n)


def filled(config: ModelConfig, items: int, users: int, seed: int) -> TimedLearner:
    """A learner with so many items and users; those who act have full histories, of the items that are acted on."""
    rng = np.random.default_rng(seed)
    learner = TimedLearner(config)
    learner.ranked = []
    rows = learner.items.add([f"item-{n}" for n in range(items)], 0)
    learner.recommender.resize(items)
    network = network_of(learner)
    drawn = rng.standard_normal((items, network.config.dim), dtype=np.float32) / 8
    network.write(rows, torch.from_numpy(drawn))
    learner.users.rows_of([f"user-{n}" for n in range(users)], limit=None)
    active = spread(ACTIVE, items)
    user = np.repeat(spread(ACTIVE, users), config.history.length)
    item = active[rng.integers(ACTIVE, size=len(user))]
    learner.users.append_items(user, item, np.zeros(len(user)))
    learner.users.append_keys(user, np.arange(1, 1 + len(user)) << 32, 0)
    nothing = np.full((len(item), config.history.length), -1, np.int32)
    examples = Examples(item, np.arange(len(item)), np.zeros(len(item)), np.ones(len(item)), nothing)
    popularity_of(learner).observe(examples, Examples.none(config.history.length))
    learner.recommender.clock = len(item)
    return learner


class Stream:
    """The same events for every world, named as its active items and users are."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def batches(self, world: World, first: int, n: int) -> Iterator[MicroBatch]:
        for number in range(first, first + n):
            yield self._batch(world, number)

    def _batch(self, world: World, number: int) -> MicroBatch:
        rng = np.random.default_rng([self._seed, number])
        users, user = np.unique(rng.integers(ACTIVE, size=BATCH), return_inverse=True)
        items, item = np.unique(rng.integers(ACTIVE, size=BATCH), return_inverse=True)
        start = number * BATCH
        return MicroBatch(
            users=tuple(f"user-{n}" for n in spread(ACTIVE, world.users)[users]),
            items=tuple(f"item-{n}" for n in spread(ACTIVE, world.items)[items]),
            user=user.astype(np.int32),
            item=item.astype(np.int32),
            type=np.ones(BATCH, np.int16),
            ts=np.zeros(BATCH, np.int64),
            value=np.full(BATCH, np.nan),
            event_key=np.arange(start + 1, start + 1 + BATCH),
            kafka_ts=np.zeros(BATCH, np.int64),
            catalogue=(),
            ranges=(OffsetRange("events", 0, start, start + BATCH),),
        )


def take_turns(worlds: Sequence[World], stream: Stream, first: int, rounds: int, each: int) -> int:
    """Each world in turn learns a few batches, a version after each, with nothing else going on."""
    for number in range(rounds):
        for world in worlds if number % 2 == 0 else worlds[::-1]:
            world.go(stream.batches(world, first + number * each, each), alone=True)
    return first + rounds * each
