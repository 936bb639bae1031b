"""From what the learner changed to a live version, on a thread of its own, so that learning does not wait for Redis.

The publisher keeps a copy of what was published last. A snapshot is written from that copy: learning never stops for
one, however large the model. One version is under way at a time; what is learned meanwhile goes into the next.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from model_store.chain import load
from model_store.codec import encode
from model_store.errors import Damaged, Incomplete, LeaseLost, ModelStoreError, NoSuchVersion, StoreUnavailable
from model_store.lease import Lease
from model_store.retention import retire
from model_store.store import ModelStore
from model_store.version import BatchRecord, KafkaIds, Manifest, timestamp
from model_store.weights import State, Update
from service.health import OK, Health
from service.metrics import TrainerMetrics

log = logging.getLogger(__name__)

LEAST_CHAIN_BYTES = 64 * 2**20  # below this, a chain of deltas is not worth a snapshot for its weight
RETRY_S = 0.25


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is to become the next version. `update` is full for the first one."""

    update: Update
    batches: tuple[BatchRecord, ...]
    trained_through: Mapping[str, Mapping[str, int]]
    events_trained: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class PublisherRules:
    interval_s: float
    snapshot_interval_s: float
    chain_limit: int
    chain_bytes_ratio: float
    keep_snapshots: int
    grace_s: float


class Publisher:
    """`submit` when `ready`; `failure` is set once nothing more can be published by this process."""

    def __init__(
        self,
        store: ModelStore,
        lease: Lease,
        rules: PublisherRules,
        *,
        run_id: str,
        kafka: KafkaIds,
        config_digest: str,
        published: State,
        parent: int | None,
        newest: int,
        metrics: TrainerMetrics,
        health: Health,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`published`: the state of version `parent`; `newest`: the highest version number ever given."""
        self.failure: ModelStoreError | None = None
        self.version = newest
        self.trained_through: Mapping[str, Mapping[str, int]] = {}
        self._store, self._lease, self._rules = store, lease, rules
        self._run_id, self._kafka, self._config_digest = run_id, kafka, config_digest
        self._published, self._parent = published, parent
        self._metrics, self._health, self._clock = metrics, health, clock
        self._submitted_at = -1e9
        # a run begins with a snapshot: it bounds the chain and closes what a dead trainer left half done
        self._snapshot_due = True
        self._snapshot_at, self._snapshot_bytes = clock(), 0
        self._chain, self._chain_bytes = 0, 0
        self._candidate: Candidate | None = None
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def idle(self) -> bool:
        return self._candidate is None

    def ready(self) -> bool:
        """Whether a version may be submitted: none is under way, and the last one is old enough."""
        return self.idle and self.failure is None and self._clock() - self._submitted_at >= self._rules.interval_s

    def submit(self, candidate: Candidate) -> None:
        with self._wake:
            if self._candidate is not None:
                raise RuntimeError("a version is under way already")
            self._candidate = candidate
            self._submitted_at = self._clock()
            self._wake.notify_all()

    def snapshot_wanted(self) -> bool:
        """Whether a reader has asked for a snapshot, the store has lost the newest version (a failover, a restart), or
        the last snapshot is too old. Asks the store; only while nothing is under way."""
        try:
            reason = self._store.take_snapshot_request()
            newest = self._store.newest() or 0
        except (StoreUnavailable, Damaged) as error:
            self._health.set("redis", str(error))
            return False
        self._health.set("redis", OK)
        if newest < self.version:
            log.warning("the store has lost version %d, its newest is %d", self.version, newest)
            self._snapshot_due = True
        if reason is not None:
            log.info("a snapshot was asked for: %s", reason)
            self._snapshot_due = True
        return self._snapshot_due or self._clock() - self._snapshot_at > self._rules.snapshot_interval_s

    @property
    def published_version(self) -> int | None:
        """The newest version that can be read: at the start of a run not the newest there is, where that is damaged."""
        return self._parent

    def state_of(self, version: int) -> State:
        """A version as it was published. Raises Damaged where it cannot be read whole any more, StoreUnavailable."""
        return load(self._store, version)

    def wait_idle(self, timeout_s: float) -> bool:
        with self._wake:
            return self._wake.wait_for(lambda: self._candidate is None or self.failure is not None, timeout_s)

    def stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stopping or self._candidate is not None)
                if self._stopping or self._candidate is None:
                    return
                candidate = self._candidate
            try:
                self._published.apply(candidate.update)
                self._publish(candidate)
            except ModelStoreError as error:
                self.failure = error
            except Exception as error:  # a bug here must end the trainer, not only this thread
                log.exception("publishing failed")
                self.failure = ModelStoreError(f"publishing failed: {error}")
            with self._wake:
                self._candidate = None
                self._wake.notify_all()
            if self.failure is not None:
                return

    def _publish(self, candidate: Candidate) -> None:
        """Until it is there; raises LeaseLost, or StoreUnavailable when stopped meanwhile."""
        started = self._clock()
        version = self.version + 1
        created_at = timestamp(time.time())
        # decided once: an attempt whose answer was lost must be repeated with the same bytes
        snapshot = self._needs_snapshot()
        while True:
            try:
                kind, size = self._attempt(candidate, version, created_at, snapshot)
                break
            except StoreUnavailable as error:
                self._metrics.publish_failures.inc()
                self._health.set("redis", str(error))
                if self._stopping:
                    raise
                time.sleep(RETRY_S)
            except (Incomplete, NoSuchVersion) as error:
                self._metrics.publish_failures.inc()
                log.warning(
                    "the store has lost what version %d builds on, so it becomes a snapshot: %s", version, error
                )
                if self._stopping:
                    raise
                if snapshot:  # it stands on nothing but its own blobs: gone again between two calls
                    time.sleep(RETRY_S)
                snapshot = True
        self._health.set("redis", OK)
        self.version = self._parent = version
        self.trained_through = candidate.trained_through
        self._count(kind, size, self._clock() - started)
        if kind == "snapshot":
            self._retire()

    def _attempt(self, candidate: Candidate, version: int, created_at: str, snapshot: bool) -> tuple[str, int]:
        blobs = encode(self._published.snapshot() if snapshot else candidate.update)
        manifest = Manifest(
            version=version,
            parent=self._parent,
            kind="snapshot" if snapshot else "delta",
            created_at=created_at,
            run_id=self._run_id,
            kafka=self._kafka,
            trained_through={topic: dict(offsets) for topic, offsets in candidate.trained_through.items()},
            events_trained=candidate.events_trained,
            batches=candidate.batches,
            config_digest=self._config_digest,
            metrics=dict(candidate.metrics),
            blobs=self._store.put_blobs(blobs),
        )
        self._store.publish(manifest, self._lease)
        if not self._store.move(version, "published", lease=self._lease):
            log.debug("version %d is published; the pointer is pinned", version)
        return manifest.kind, sum(len(blob) for blob in blobs.values())

    def _needs_snapshot(self) -> bool:
        heavy = max(LEAST_CHAIN_BYTES, self._rules.chain_bytes_ratio * self._snapshot_bytes)
        return (
            self._snapshot_due
            or self._parent is None
            or self._chain >= self._rules.chain_limit
            or self._chain_bytes > heavy
            or self._clock() - self._snapshot_at > self._rules.snapshot_interval_s
        )

    def _count(self, kind: str, size: int, seconds: float) -> None:
        if kind == "snapshot":
            self._snapshot_due = False
            self._snapshot_at, self._snapshot_bytes = self._clock(), size
            self._chain = self._chain_bytes = 0
        else:
            self._chain += 1
            self._chain_bytes += size
        self._metrics.publish_seconds.labels(kind).observe(seconds)
        self._metrics.publish_bytes.labels(kind).observe(size)
        self._metrics.model_version.set(self.version)
        self._health.fact("model_version", self.version)

    def _retire(self) -> None:
        try:
            gone = retire(
                self._store,
                now=time.time(),
                grace=self._rules.grace_s,
                keep=self._rules.keep_snapshots,
                lease=self._lease,
            )
        except LeaseLost:
            raise
        except ModelStoreError as error:
            log.warning("old versions stay for now: %s", error)
        else:
            log.debug("retired %d versions", len(gone))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
