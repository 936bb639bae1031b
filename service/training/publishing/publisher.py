"""From what the learner changed to a live version, on a thread of its own, so that learning does not wait for Redis.

One submission is under way at a time; what is learned meanwhile goes into the next. A version is what has changed in
the sum of all submissions since the one before. Whether it goes live is the gate's decision.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from model_store.chain import checkpoint_of, load
from model_store.errors import Damaged, InvalidUpdate, LeaseLost, ModelStoreError, StoreUnavailable
from model_store.lease import Lease
from model_store.retention import retire
from model_store.store import ModelStore
from model_store.version import Kind
from model_store.weights import State
from service.health import OK, Health
from service.metrics import TrainerMetrics
from service.training.gate.gate import Verdict
from service.training.gate.keeper import GateKeeper
from service.training.publishing.draft import Draft
from service.training.publishing.lineage import Lineage
from service.training.publishing.pointer import Pointer
from service.training.publishing.release import Releaser
from service.training.publishing.retry import Retry
from service.training.publishing.rules import PublisherRules
from service.training.publishing.snapshots import SnapshotPolicy
from service.training.publishing.submission import Origin, Outcome, Standing, Submission
from service.training.reference import Reference

log = logging.getLogger(__name__)

ASK_EVERY_S = 0.5  # whether a reader wishes for a snapshot, and whether the store still has the newest version


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
        self.reference = reference
        self._store, self._lease, self._rules = store, lease, rules
        self._metrics, self._health, self._clock = metrics, health, clock
        self._draft = Draft(standing.state, standing.unsaved)
        self._lineage = Lineage(standing)
        self._policy = SnapshotPolicy(rules, clock())
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
        self._stopping = threading.Event()
        self._retry = Retry(self._stopping, metrics=metrics, health=health)
        pointer = Pointer(store, lease, rules.promote_after_s, metrics=metrics, clock=clock)
        self._releaser = Releaser(
            store, lease, origin, self._draft, self._lineage, pointer, self._retry, reference.traits.logarithms
        )
        self._submitted_at, self._asked_at = -1e9, clock()
        self._under_way: tuple[Submission, Future[Outcome]] | None = None
        self._pending = 0  # batches of the submission under way, until they are in the lineage
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        if standing.parent is not None:
            version, state = standing.reference or (standing.parent, None)
            self._gate.begin(standing.state, version, state)

    # -- the trainer's side ------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    @property
    def idle(self) -> bool:
        return self._under_way is None

    def ready(self) -> bool:
        """Whether a version may be submitted: none is under way, and the last one is old enough."""
        return self.idle and self.failure is None and self._clock() - self._submitted_at >= self._rules.interval_s

    def submit(self, submission: Submission) -> Future[Outcome]:
        """Hands a submission over. What became of it is known once it is published, or cannot be: see `failure`."""
        with self._wake:
            if self._under_way is not None:
                raise RuntimeError("a version is under way already")
            outcome: Future[Outcome] = Future()
            self._under_way = submission, outcome
            self._pending = len(submission.batches)
            self._submitted_at = self._clock()
            self._wake.notify_all()
        return outcome

    @property
    def wants_snapshot(self) -> bool:
        """Whether a submission is wished for though nothing was learned: a reader has asked for a snapshot, the store
        has lost the newest version (a failover, a restart), or the last snapshot is too old."""
        return self._policy.due(self._clock())

    @property
    def published_version(self) -> int | None:
        """The newest version that can be read: at the start of a run not the newest there is, where that is damaged."""
        return self._lineage.parent

    @property
    def published_at(self) -> float | None:
        """When that version was made, epoch seconds."""
        return self._lineage.parent_at

    @property
    def version(self) -> int:
        """The highest version number ever given."""
        return self._lineage.newest

    @property
    def unpublished(self) -> int:
        """How many of the micro-batches that were handed over no version holds yet."""
        return len(self._lineage.batches) + self._pending

    def checkpoint(self, version: int) -> tuple[int, State]:
        """A version as it was published, or the newest one before it that holds the trainer's own state: weights are of
        no use without the optimizer's. Raises Damaged where it cannot be read whole any more, StoreUnavailable."""
        at = checkpoint_of(self._store, version).version
        return at, load(self._store, at)

    def wait_idle(self, timeout_s: float) -> bool:
        with self._wake:
            return self._wake.wait_for(lambda: self._under_way is None or self.failure is not None, timeout_s)

    def stop(self) -> None:
        with self._wake:
            self._stopping.set()
            self._wake.notify_all()
        self._thread.join()

    # -- the publisher's thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self.failure is None:
            with self._wake:
                until_asking = self._asked_at + ASK_EVERY_S - self._clock()
                self._wake.wait_for(lambda: self._stopping.is_set() or not self.idle, max(0.0, until_asking))
            if self._stopping.is_set():
                return
            under_way = self._under_way
            try:
                if under_way is not None:
                    self._publish(*under_way)
                else:
                    self._ask_store()
            except ModelStoreError as error:
                self.failure = error
            except Exception as error:  # a bug here must end the trainer, not only this thread
                log.exception("publishing failed")
                self.failure = ModelStoreError(f"publishing failed: {error}")
            with self._wake:
                if under_way is not None:  # else one may have been submitted meanwhile
                    self._under_way = None
                self._wake.notify_all()

    def _publish(self, submission: Submission, outcome: Future[Outcome]) -> None:
        """Until it is there; raises LeaseLost, or StoreUnavailable when stopped meanwhile."""
        try:
            outcome.set_result(self._made_of(submission))
        except BaseException as error:
            outcome.set_exception(error)
            raise

    def _made_of(self, submission: Submission) -> Outcome:
        verdict = self._gate.judge(
            self._draft.state,
            submission.update,
            submission.paired,
            submission.events_trained,
            reverted=submission.reverted,
        )
        self._draft.add(submission)
        self._lineage.add(submission.batches)
        self._pending = 0
        if self._lineage.in_doubt:
            self._retry.until_done(lambda: self._lineage.settle(self._store.newest()))
        metrics = {**submission.metrics, **verdict.norms.figures()}
        try:
            version = self._release_new(metrics, verdict)
        except InvalidUpdate as error:  # not finite, so it cannot even be written
            self._gate.could_not_write(error)
            return Outcome(None, self._gate.version)
        return Outcome(version, self._gate.version if verdict.go_back else None)

    def _release_new(self, metrics: dict[str, float], verdict: Verdict) -> int:
        """A delta, or a snapshot where none is possible; and the snapshot that is due, which is the same state once
        more, written out whole: who has the version before need not load it. Returns the newest version."""
        version = None
        if not self._lineage.takes_a_delta:
            version = self._release("snapshot", metrics, verdict)
        elif self._lineage.batches or not self._snapshot_is_due():
            version = self._release("delta", metrics, verdict)
        if version is not None:
            self._gate.released(version, self._draft.state, verdict)
        if version is None or self._snapshot_is_due():
            whole = self._release("snapshot", metrics, verdict)
            if version is None:
                self._gate.released(whole, self._draft.state, verdict)
            version = whole
        return version

    def _snapshot_is_due(self) -> bool:
        return self._policy.due(self._clock())

    def _release(self, kind: Kind, metrics: dict[str, float], verdict: Verdict) -> int:
        started = self._clock()
        checkpoint = self._policy.checkpoint_due(started)
        release = self._releaser.release(kind, metrics, verdict.why_not, checkpoint=checkpoint)
        manifest, now = release.manifest, self._clock()
        self._policy.released(manifest.kind, release.bytes, now, checkpoint=manifest.checkpoint)
        self._metrics.publish_seconds.labels(manifest.kind).observe(now - started)
        self._metrics.publish_bytes.labels(manifest.kind).observe(release.bytes)
        self._metrics.model_version.set(manifest.version)
        self._health.fact("model_version", manifest.version)
        if manifest.kind == "snapshot":
            self._retire()
        return manifest.version

    def _ask_store(self) -> None:
        """While nothing is under way."""
        self._asked_at = self._clock()
        try:
            if (reason := self._store.take_snapshot_request(self._lease)) is not None:
                log.info("a snapshot was asked for: %s", reason)
                self._policy.ask()
            newest = self._store.newest() or 0
        except (StoreUnavailable, Damaged) as error:
            self._health.set("redis", str(error))
            return
        self._health.set("redis", OK)
        if newest < self.version:
            log.warning("the store has lost version %d, its newest is %d", self.version, newest)
            self._lineage.in_doubt = True
            self._policy.ask()

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
