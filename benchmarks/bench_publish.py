"""What do a publish and a checkpoint cost, and how long does learning stall for them, as a model and its users grow?

Several worlds side by side, each a trainer with its publisher over a real Redis, and in each the very same events,
which touch the same 10,000 of its items: 10,000 items in all against a million, 10,000 users against half a million.
They take turns, so that whatever else the machine does meets all alike, and figures are medians and ratios of one run.
"""

import argparse
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from consumers.events import DEFAULT_EVENT_WEIGHTS
from consumers.feeder import Feeder
from consumers.micro_batch import MicroBatch
from consumers.records import OffsetRange, Offsets
from model_store.blob_folder import BlobFolder
from model_store.keys import Keys
from model_store.lease import Lease, LeaseKeeper
from model_store.redis_connection import RedisConnection
from model_store.redis_store import RedisStore
from model_store.version import KafkaIds, Manifest
from model_store.weights import TRAINER
from service.health import Health
from service.metrics import TrainerMetrics
from service.model.negatives import STEPS_AHEAD
from service.training.configuration import config_digest, environment, told
from service.training.evaluation import PairedSums, RankSums
from service.training.intake import Events
from service.training.learner import Learner
from service.training.learner_config import LearnerConfig
from service.training.progress import Progress
from service.training.publisher import Candidate, Origin, Publisher, PublisherRules, Standing
from service.training.reference import Reference
from service.training.trainer import Trainer
from tests.redis_server import redis_server

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

    def _rank(self, events: Events, reference: Reference | None) -> tuple[RankSums, PairedSums]:
        began = time.perf_counter()
        sums = super()._rank(events, reference)
        self.ranked.append(time.perf_counter() - began)
        return sums


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
        config = LearnerConfig(evaluate_sample=32)
        self.store = TimedStore(
            connection,
            Keys(model=self.name),
            folder=BlobFolder(self.folder.as_uri()) if self.folder is not None else None,
            linger=0,
        )
        self.store.published = []
        lease = self.store.acquire("bench", 3_600.0)
        assert lease is not None
        digest = config_digest(config, TYPES)
        self.learner = filled(config, self.items, self.users, seed)
        self.publisher = TimedPublisher(
            self.store,
            lease,
            PublisherRules(0.15, 1e9, 10**9, 1e9, 1, 0.0, checkpoint_interval_s=self.checkpoint_interval_s),
            Origin("bench", KafkaIds(cluster_id="bench"), digest, told(config, TYPES), environment("cpu")),
            Standing(),
            Reference(self.learner.recommender),
            metrics=TrainerMetrics(),
            health=Health("trainer"),
        )
        self.publisher.start()
        self.store.submitted = time.perf_counter()
        self.publisher.submit(Candidate(self.learner.snapshot(), (), {}, 0, {}))
        self.learner.drain()
        assert self.publisher.wait_idle(PATIENCE_S)
        assert self.publisher.failure is None, self.publisher.failure
        self.script: Script | None = None
        self.trainer = TimedTrainer(
            self.learner,
            Progress(),
            self.publisher,
            LeaseKeeper(self.store, lease, 3_600.0),
            lambda _: cast(Feeder, self.script),
            event_types=TYPES,
            events_topic="events",
            batch_events=10**9,
            replay=1,
            metrics=TrainerMetrics(),
            health=Health("trainer"),
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


def filled(config: LearnerConfig, items: int, users: int, seed: int) -> TimedLearner:
    """A learner with so many items and users; those who act have full histories, of the items that are acted on."""
    rng = np.random.default_rng(seed)
    learner = TimedLearner(config)
    learner.ranked = []
    rows = learner.items.add([f"item-{n}" for n in range(items)], 0)
    learner.recommender.resize(items)
    learner.weights.adagrad.resize(items)
    learner.network.write(rows, torch.from_numpy(rng.standard_normal((items, config.dim), dtype=np.float32) / 8))
    learner.users.rows_of([f"user-{n}" for n in range(users)], limit=None)
    active = spread(ACTIVE, items)
    user = np.repeat(spread(ACTIVE, users), config.history)
    item = active[rng.integers(ACTIVE, size=len(user))]
    learner.users.append_items(user, item)
    learner.users.append_keys(user, np.arange(1, 1 + len(user)) << 32, 0)
    learner.popularity.observe(item, np.arange(len(item)), np.ones(len(item)))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=40, help="a world, one at a time and nothing else going on")
    parser.add_argument("--snapshots", type=int, default=3, help="a world, while it learns")
    parser.add_argument("--all", action="store_true", help="seven worlds, in 6 GB of memory, instead of two")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"machine: {os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}, numpy {np.__version__}")
    with ExitStack() as stack:
        server = stack.enter_context(redis_server())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-bench-")))
        connection = stack.enter_context(server.client())
        worlds = [
            World("10k items", 10_000, 10_000),
            World("1M items", 1_000_000, 10_000),
        ]
        more = [
            World("10k items, no checkpoints", 10_000, 10_000, checkpoint_interval_s=1e9),
            World("1M items, no checkpoints", 1_000_000, 10_000, checkpoint_interval_s=1e9),
            World("10k items, file://", 10_000, 10_000, folder=folder),
            World("1M items, file://", 1_000_000, 10_000, folder=folder),
            World("10k items, 500k users", 10_000, 500_000),
        ]
        worlds += more if arguments.all else []
        for world in worlds:
            began = time.perf_counter()
            world.begin(connection, 1)
            stack.callback(world.end)
            print(f"{world.name}: version 1 after {time.perf_counter() - began:.1f} s")
        stream = Stream(1)
        at = take_turns(worlds, stream, 0, 2, 3)
        for world in worlds:
            world.forget()
        at = take_turns(worlds, stream, at, max(1, arguments.versions // 5), 5)
        costs(worlds)
        for world in worlds:
            world.forget()
            world.probe = True
        at = take_turns(worlds, stream, at, 4, 3)
        for _ in range(arguments.snapshots):
            for world in worlds:
                world.store.request_snapshot("bench")
                world.go((), alone=True, linger_s=1.0)
        print("\nlongest that a thread beside it had to wait while a version was published: ms, p50 and worst")
        for world in worlds:
            for kind, holds in world.holds.items():
                print(f"  {world.name:<28} {kind:<9} {np.median(holds):7.1f} {max(holds):7.1f}")
        stalls(worlds, stream, at, arguments.snapshots)


def take_turns(worlds: Sequence[World], stream: Stream, first: int, rounds: int, each: int) -> int:
    """Each world in turn learns a few batches, a version after each, with nothing else going on."""
    for number in range(rounds):
        for world in worlds if number % 2 == 0 else worlds[::-1]:
            world.go(stream.batches(world, first + number * each, each), alone=True)
    return first + rounds * each


def costs(worlds: Sequence[World]) -> None:
    print("\na version, alone: ms from submit to live, p50 and p90; kB of weights, and of all; ms to drain and submit;")
    print("ms a step, and of it ms to evaluate")
    base: dict[str, float] = {}
    for world in worlds:
        deltas = [each for each in world.store.published if each.kind == "delta" and each.live]
        taken = np.array([each.live - each.submitted for each in deltas]) * 1e3
        submits = np.array(world.trainer.submits) * 1e3
        step = np.median([each.ended - each.began for each in world.steps]) * 1e3
        rank = np.median(world.learner.ranked) * 1e3
        base[world.name] = float(np.median(taken))
        print(
            f"  {world.name:<28} {np.median(taken):7.1f} {np.percentile(taken, 90):7.1f}  "
            f"{np.mean([each.weights_bytes for each in deltas]) / 1e3:7.0f} "
            f"{np.mean([each.all_bytes for each in deltas]) / 1e3:7.0f}  "
            f"{np.median(submits):6.1f} {submits.max():6.1f}  {step:6.0f} {rank:5.1f}"
        )
    for small, large in (
        ("10k items", "1M items"),
        ("10k items, no checkpoints", "1M items, no checkpoints"),
        ("10k items, file://", "1M items, file://"),
        ("10k items", "10k items, 500k users"),
    ):
        if small in base and large in base:
            print(f"  {large} ÷ {small}: {base[large] / base[small]:.2f}")


def stalls(worlds: Sequence[World], stream: Stream, at: int, snapshots: int) -> None:
    """Learning without a pause: what a step takes longer while a version is under way."""
    for world in worlds:
        world.forget()
        world.probe = False
        world.learner.evaluate_sample = 0  # it, and drawing negatives, come every few steps and are no stall
    for _ in range(snapshots):
        for world in worlds:
            for may, wanted, steps in ((False, False, 24), (True, False, 24), (True, True, 48)):
                world.publisher.may = may
                if wanted:
                    world.store.request_snapshot("bench")
                world.go(stream.batches(world, at, steps), alone=False)
                at += steps
    print(
        "\nhow much longer than usual a step took, ms: p50, p90, p99 and worst; and for how long it waited for another"
    )
    print("thread of the trainer: p50, p99 and worst")
    for world in worlds:
        shown_stalls(world)
    print("\na snapshot beside learning: s, MB, and how many times the weights of a delta, and all of it")
    for world in worlds:
        shown_sizes(world)


def shown_stalls(world: World) -> None:
    groups: dict[str, list[Step]] = {"none": [], "delta": [], "snapshot": []}
    for step in world.steps:
        if step.number % STEPS_AHEAD:
            beside = {v.kind for v in world.store.published if v.began < step.ended and v.live > step.began}
            kind = "snapshot" if "snapshot" in beside else "delta" if beside else "none"
            groups[kind].append(step)
    usual = float(np.median([step.ended - step.began for step in groups["none"]]))
    for kind, steps in groups.items():
        if steps:
            extra = [step.ended - step.began - usual for step in steps]
            blocked = [step.blocked for step in steps]
            seconds = (*np.percentile(extra, [50, 90, 99, 100]), *np.percentile(blocked, [50, 99, 100]))
            figures = " ".join(f"{value * 1e3:6.1f}" for value in seconds)
            print(f"  {world.name:<28} {kind:<9} {len(steps):4d} steps of {usual * 1e3:.0f} {figures}")


def shown_sizes(world: World) -> None:
    written = [each for each in world.store.published if each.kind == "snapshot" and each.live]
    deltas = [each for each in world.store.published if each.kind == "delta"]
    weights, everything = (
        float(np.mean([getattr(each, what) for each in written]) / np.mean([getattr(each, what) for each in deltas]))
        for what in ("weights_bytes", "all_bytes")
    )
    seconds = np.median([each.live - each.began for each in written])
    print(f"  {world.name:<28} {seconds:6.2f} {written[-1].all_bytes / 1e6:6.0f} {weights:7.1f} {everything:7.1f}")


if __name__ == "__main__":
    main()
