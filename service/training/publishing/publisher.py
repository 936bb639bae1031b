"""Makes versions of what the learner changed, on a thread of its own, so that learning does not wait for Redis.

One submission is under way at a time; what is learned meanwhile goes into the next. A version holds what has changed in
the draft since the version before. The gate decides whether it goes live.
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

ASK_EVERY_S = 0.5  # whether a reader has asked for a snapshot, and whether the store still has the newest version


class Publisher:
    """The trainer calls `submit` when `ready`. `failure` is set once this process can publish nothing more."""

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
        """Whether no submission is under way."""
        return self._under_way is None

    def ready(self) -> bool:
        """Whether `submit` may be called: no submission is under way, and the last one is old enough."""
        return self.idle and self.failure is None and self._clock() - self._submitted_at >= self._rules.interval_s

    def submit(self, submission: Submission) -> Future[Outcome]:
        """Hands a submission over. The outcome is set once it is published, or no version can be made of it; where
        publishing fails, it has the exception that is in `failure`."""
        with self._wake:
            if self._under_way is not None:
                raise RuntimeError("a submission is under way already")
            outcome: Future[Outcome] = Future()
            self._under_way = submission, outcome
            self._pending = len(submission.batches)
            self._submitted_at = self._clock()
            self._wake.notify_all()
        return outcome

    @property
    def wants_snapshot(self) -> bool:
        """Whether a snapshot is due, so that a submission is wanted even though nothing was learned: a reader has asked
        for one, the store has lost the newest version, or the last snapshot is too old."""
        return self._policy.due(self._clock())

    @property
    def published_version(self) -> int | None:
        """The newest version that can be read. At the start of a run `version` may be newer, where that is damaged."""
        return self._lineage.parent

    @property
    def published_at(self) -> float | None:
        """When `published_version` was made, epoch seconds."""
        return self._lineage.parent_at

    @property
    def version(self) -> int:
        """The highest version number ever given."""
        return self._lineage.newest

    @property
    def unpublished(self) -> int:
        """How many submitted micro-batches are in no version yet."""
        return len(self._lineage.batches) + self._pending

    def checkpoint(self, version: int) -> tuple[int, State]:
        """(number, state) of a version where it is a checkpoint, else of the newest checkpoint before it, since weights
        are of no use without the optimizer's state. Raises: Damaged where it cannot be read whole; StoreUnavailable."""
        at = checkpoint_of(self._store, version).version
        return at, load(self._store, at)

    def wait_idle(self, timeout_s: float) -> bool:
        """Waits until no submission is under way or `failure` is set; False where that takes longer."""
        with self._wake:
            return self._wake.wait_for(lambda: self._under_way is None or self.failure is not None, timeout_s)

    def stop(self) -> None:
        """Ends the thread. A submission under way is given up once the store does not take it."""
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
                if under_way is not None:  # else the trainer may have submitted one meanwhile
                    self._under_way = None
                self._wake.notify_all()

    def _publish(self, submission: Submission, outcome: Future[Outcome]) -> None:
        """Publishes a submission and sets its outcome. Raises: LeaseLost; StoreUnavailable when stopped meanwhile."""
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
        except InvalidUpdate as error:  # weights that are not finite cannot be written
            self._gate.could_not_write(error)
            return Outcome(None, self._gate.version)
        return Outcome(version, self._gate.version if verdict.go_back else None)

    def _release_new(self, metrics: dict[str, float], verdict: Verdict) -> int:
        """Releases a delta, or a snapshot where no delta can follow on the parent. Where a snapshot is due, it follows
        the delta as a version of its own with the same state: readers that have the delta need not load it.

        Returns the newest version.
        """
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
        """Looks whether a reader asked for a snapshot and whether the store has lost versions. Called while idle."""
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
