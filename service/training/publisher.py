"""From what the learner changed to a live version, on a thread of its own, so that learning does not wait for Redis.

The publisher keeps the sum of all it was given. A version is what has changed in it since the one before; a snapshot is
written from it, so learning never stops for one, however large the model. One candidate is under way at a time; what is
learned meanwhile goes into the next. Whether a version goes live is the gate's decision.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from model_store.chain import checkpoint_of, load
from model_store.changes import Changes
from model_store.codec import TRAINER_GROUP, encode, group_of
from model_store.errors import (
    Damaged,
    Incomplete,
    InvalidUpdate,
    LeaseLost,
    ModelStoreError,
    NoSuchVersion,
    StoreUnavailable,
)
from model_store.lease import Lease
from model_store.retention import retire
from model_store.store import CHALLENGER, ModelStore
from model_store.version import BatchRecord, KafkaIds, Kind, Manifest, timestamp
from model_store.weights import State, Update
from service.health import OK, Health
from service.metrics import TrainerMetrics
from service.training.evaluation.measures import PairedSums
from service.training.gate import GateRules
from service.training.gatekeeper import GateKeeper
from service.training.reference import Reference

log = logging.getLogger(__name__)

LEAST_CHAIN_BYTES = 64 * 2**20  # below this, a chain of deltas is not worth a snapshot for its weight
RETRY_S = 0.25
REMEMBERED = 1_000  # versions whose batches are kept at hand, should the store lose the newest ones
PIN_ASKED_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is to become the next version. `update` is full for the first one."""

    update: Update
    batches: tuple[BatchRecord, ...]
    trained_through: Mapping[str, Mapping[str, int]]
    events_trained: int
    metrics: Mapping[str, float]
    paired: PairedSums = field(default_factory=PairedSums)  # measured while it was learned, against the reference
    reverted: bool = False  # its weights went back to the reference's


@dataclass(frozen=True, slots=True)
class PublisherRules:
    interval_s: float
    snapshot_interval_s: float
    chain_limit: int
    chain_bytes_ratio: float
    keep_snapshots: int
    grace_s: float
    checkpoint_interval_s: float = 0.0  # least time between two versions that hold the trainer's own state
    promote_after_s: float = 0.0  # a pointer pinned for so long is set free; 0: never
    gate: GateRules = field(default_factory=GateRules)


@dataclass(frozen=True, slots=True)
class Origin:
    """What every manifest of a run says alike."""

    run_id: str
    kafka: KafkaIds
    config_digest: str
    config: Mapping[str, Any]
    environment: Mapping[str, str | int]


def for_trainers(name: str) -> bool:
    return group_of(name) == TRAINER_GROUP


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run finds the store."""

    state: State = field(default_factory=State)  # of version `parent`, and what was learned again since
    parent: int | None = None  # the newest version that can be read; None: there is none
    newest: int = 0  # the highest version number ever given
    batches: tuple[BatchRecord, ...] = ()  # what `state` has learned since `parent`; a delta cannot follow on these
    unsaved: Changes = field(default_factory=lambda: Changes(for_trainers))  # of its own state, what `parent` lacks
    events: int = 0  # learned in all
    opened: bool = True  # whether the gate lets versions through
    reference: tuple[int, State] | None = None  # what the gate compares with, where that is not `parent`


class Publisher:
    """`submit` when `ready`; `failure` is set once nothing more can be published by this process."""

    def __init__(
        self,
        store: ModelStore,
        lease: Lease,
        rules: PublisherRules,
        origin: Origin,
        standing: Standing,
        reference: Reference,
        *,
        metrics: TrainerMetrics,
        health: Health,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.failure: ModelStoreError | None = None
        self.version = standing.newest
        self.reference = reference
        self._store, self._lease, self._rules, self._origin = store, lease, rules, origin
        self._state, self._parent = standing.state, standing.parent
        self._metrics, self._health, self._clock = metrics, health, clock
        self._weights, self._checkpoint = Changes(lambda name: not for_trainers(name)), standing.unsaved
        self._batches: list[BatchRecord] = list(standing.batches)  # since `parent`
        self._released: deque[tuple[int, list[BatchRecord]]] = deque(maxlen=REMEMBERED)  # with what each has learned
        self._store_has_lost = False  # the newest versions
        self._latest: Candidate | None = None
        self._gate = GateKeeper(
            rules.gate,
            reference,
            store,
            lease,
            opened=standing.opened,
            events=standing.events,
            metrics=metrics,
            health=health,
        )
        self._pin_asked_at = -1e9
        self._submitted_at = self._checkpoint_at = -1e9
        # a run begins with a snapshot: it bounds the chain and closes what a dead trainer left half done
        self._snapshot_due = True
        self._chained = not standing.batches
        self._snapshot_at, self._snapshot_bytes = clock(), 0
        self._chain, self._chain_bytes = 0, 0
        self._candidate: Candidate | None = None
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        if standing.parent is not None:
            if self._chained:
                self._released.append((standing.parent, []))
            version, state = standing.reference or (standing.parent, None)
            self._gate.begin(self._state, version, state)

    # -- the trainer's side ------------------------------------------------------------------------------------------

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
            reason = self._store.take_snapshot_request(self._lease)
            newest = self._store.newest() or 0
        except LeaseLost as error:
            self.failure = error
            return False
        except (StoreUnavailable, Damaged) as error:
            self._health.set("redis", str(error))
            return False
        self._health.set("redis", OK)
        if newest < self.version:
            log.warning("the store has lost version %d, its newest is %d", self.version, newest)
            self._snapshot_due = self._store_has_lost = True
        if reason is not None:
            log.info("a snapshot was asked for: %s", reason)
            self._snapshot_due = True
        return self._snapshot_due or (self._chain > 0 and self._snapshot_is_old)

    @property
    def published_version(self) -> int | None:
        """The newest version that can be read: at the start of a run not the newest there is, where that is damaged."""
        return self._parent

    def checkpoint(self, version: int) -> tuple[int, State]:
        """A version as it was published, or the newest one before it that holds the trainer's own state: weights are of
        no use without the optimizer's. Raises Damaged where it cannot be read whole any more, StoreUnavailable."""
        at = checkpoint_of(self._store, version).version
        return at, load(self._store, at)

    def take_revert(self) -> int | None:
        """The version whose weights learning should go back to, said once; None as long as all is well."""
        version, self._gate.revert_to = self._gate.revert_to, None
        return version

    def wait_idle(self, timeout_s: float) -> bool:
        with self._wake:
            return self._wake.wait_for(lambda: self._candidate is None or self.failure is not None, timeout_s)

    def stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._thread.join()

    # -- the publisher's thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stopping or self._candidate is not None)
                if self._stopping or self._candidate is None:
                    return
                candidate = self._candidate
            try:
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
        why_not, figures = self._gate.judge(
            self._state, candidate.update, candidate.paired, candidate.events_trained, reverted=candidate.reverted
        )
        self._state.apply(candidate.update)
        for changes in (self._weights, self._checkpoint):
            changes.add(candidate.update)
        self._batches += candidate.batches
        self._latest = candidate
        metrics = {**candidate.metrics, **figures}
        if self._store_has_lost:
            self._fall_back()
        if self._parent is None or not self._chained:
            self._release("snapshot", metrics, why_not)
        elif self._batches or not self._needs_snapshot():
            self._release("delta", metrics, why_not)
        if self._needs_snapshot() and not self._batches:
            # the same state once more, written out whole: who has the version before need not load it
            self._release("snapshot", metrics, why_not)

    def _release(self, kind: Kind, metrics: Mapping[str, float], why_not: str | None) -> None:
        """One version, with everything that has changed since the one before."""
        started = self._clock()
        assert self._latest is not None
        checkpoint = kind == "snapshot" or started - self._checkpoint_at >= self._rules.checkpoint_interval_s
        changed = self._weights.take(self._state)
        if checkpoint:
            changed = _joined(changed, self._checkpoint.take(self._state))
        try:
            blobs = self._encoded(self._state.snapshot() if kind == "snapshot" else changed)
        except InvalidUpdate as error:  # not finite, so it cannot even be written
            for changes in (self._weights, self._checkpoint):
                changes.add(changed)
            self._gate.could_not_write(error)
            return
        version, created_at = self.version + 1, timestamp(time.time())
        while True:
            try:
                if self._store_has_lost and kind == "snapshot":  # a delta fits its own parent and no other
                    self._fall_back()
                manifest = Manifest(
                    version=version,
                    parent=self._parent,
                    kind=kind,
                    created_at=created_at,
                    run_id=self._origin.run_id,
                    kafka=self._origin.kafka,
                    trained_through={topic: dict(at) for topic, at in self._latest.trained_through.items()},
                    events_trained=self._latest.events_trained,
                    batches=tuple(self._batches),
                    checkpoint=checkpoint,
                    config_digest=self._origin.config_digest,
                    config=dict(self._origin.config),
                    environment=dict(self._origin.environment),
                    metrics=dict(metrics),
                    blobs=self._store.put_blobs(blobs),
                )
                self._store.publish(manifest, self._lease)
                self._point_at(version, why_not)
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
                self._store_has_lost = True
                if kind == "snapshot":  # it stands on nothing but its own blobs: gone again between two calls
                    time.sleep(RETRY_S)
                else:
                    kind, checkpoint = "snapshot", True
                    self._checkpoint.take(self._state)
                    blobs = self._encoded(self._state.snapshot())
        self._health.set("redis", OK)
        self.version = self._parent = version
        self._released.append((version, self._batches))
        self._batches = []
        self._chained = True
        self._count(manifest, sum(len(blob) for blob in blobs.values()), self._clock() - started)
        self._gate.released(version, self._state, why_not)
        if kind == "snapshot":
            self._retire()

    def _encoded(self, update: Update) -> dict[str, bytes]:
        """Raises: InvalidUpdate."""
        return encode(update, logarithms=self.reference.traits.logarithms)

    def _fall_back(self) -> None:
        """Builds on the newest version that a failover or a restart of the store has left, with the batches of all it
        has lost: so the record of what was learned has no hole. Raises: StoreUnavailable."""
        left = self._store.newest()
        self._store_has_lost = False
        if left is None or left not in [version for version, _ in self._released]:
            return  # it has lost everything, or more than is remembered here: the record begins anew
        while self._released[-1][0] > left:
            _, batches = self._released.pop()
            self._batches = [*batches, *self._batches]
            self._parent, self._chained = left, False

    def _point_at(self, version: int, why_not: str | None) -> None:
        """Moves the live pointer, or else the challenger's, and says why."""
        if why_not is None and not self._store.move(version, "published", lease=self._lease):
            why_not = "the pointer is pinned"
            if self._unpinned(version):
                why_not = None
        if why_not is not None:
            self._store.move(version, why_not, alias=CHALLENGER, lease=self._lease)
            self._metrics.versions_held_back.inc()

    def _unpinned(self, version: int) -> bool:
        """Whether a pin has lasted for as long as the settings allow, so that it is gone and this version live."""
        now = self._clock()
        if not self._rules.promote_after_s or now - self._pin_asked_at < PIN_ASKED_EVERY_S:
            return False
        self._pin_asked_at = now
        since = self._store.pinned_since()
        if since is None or time.time() - since < self._rules.promote_after_s:
            return False
        self._store.promote(version, f"pinned for {self._rules.promote_after_s:g} s", lease=self._lease)
        log.warning("the pointer was pinned for %g s: version %d is live", self._rules.promote_after_s, version)
        return True

    # -- snapshots ---------------------------------------------------------------------------------------------------

    @property
    def _snapshot_is_old(self) -> bool:
        return self._clock() - self._snapshot_at > self._rules.snapshot_interval_s

    def _needs_snapshot(self) -> bool:
        heavy = max(LEAST_CHAIN_BYTES, self._rules.chain_bytes_ratio * self._snapshot_bytes)
        too_long = self._chain >= self._rules.chain_limit or self._chain_bytes > heavy
        return self._snapshot_due or (self._chain > 0 and (too_long or self._snapshot_is_old))

    def _count(self, manifest: Manifest, size: int, seconds: float) -> None:
        if manifest.checkpoint:
            self._checkpoint_at = self._clock()
        if manifest.kind == "snapshot":
            self._snapshot_due = False
            self._snapshot_at, self._snapshot_bytes = self._clock(), size
            self._chain = self._chain_bytes = 0
        else:
            self._chain += 1
            self._chain_bytes += size
        self._metrics.publish_seconds.labels(manifest.kind).observe(seconds)
        self._metrics.publish_bytes.labels(manifest.kind).observe(size)
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


def _joined(left: Update, right: Update) -> Update:
    """Two updates of different tables as one."""
    return Update(left.full, {**left.tables, **right.tables}, {**left.tensors, **right.tensors})
