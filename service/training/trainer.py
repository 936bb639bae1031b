"""The trainer's loop: take a micro-batch, evaluate, learn, and hand what changed to the publisher."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from consumers.feeder_process import Feeder
from consumers.lag import Lag
from consumers.letters import Refused
from consumers.micro_batch import MicroBatch
from consumers.pipe import FeederStatus
from consumers.records import Offsets
from model_store.errors import Damaged, NoSuchVersion, StoreUnavailable
from model_store.lease import LeaseKeeper
from service.health import OK, Health
from service.metrics import TrainerMetrics
from service.process import Fatal
from service.training.effort import affordable
from service.training.evaluation.measures import PairedSums
from service.training.feed import Feed
from service.training.learner import Learner, LearnResult
from service.training.learning_metrics import LearningMetrics
from service.training.progress import Progress
from service.training.publishing.publisher import Publisher
from service.training.publishing.submission import Outcome, Submission
from service.training.refused_letters import RefusedLetters
from service.training.restart.resume import OTHER_KAFKA

log = logging.getLogger(__name__)

SKIPPED_IN_A_ROW = 3  # batches; then the weights go back to the last good version
COMMIT_EVERY_S = 1.0  # committed offsets serve only monitoring
HOUSEKEEPING_EVERY_S = 0.5
LAST_VERSION_S = 10.0  # a trainer that is asked to stop waits this long for its last version
RECEIVE_S = 0.02  # how long one look for the next message takes, at most
# With so many micro-batches in no version yet, learning waits for the store; then the pipe fills up, and the events
# stay in Kafka. Each is 220 bytes of the next manifest, so that has 4.4 MB at most. At 20 a second it takes 17 minutes.
MOST_UNPUBLISHED = 20_000


class Trainer:
    """Learns until `stop` is set."""

    def __init__(
        self,
        learner: Learner,
        progress: Progress,
        publisher: Publisher,
        keeper: LeaseKeeper,
        start_feeder: Callable[[Offsets], Feeder],
        refused: RefusedLetters,
        *,
        event_types: Sequence[str],
        batch_events: int,
        replay: int,
        adapt: bool = True,
        metrics: TrainerMetrics,
        health: Health,
        stop: threading.Event,
        other_kafka: Callable[[], str | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`other_kafka` returns why the offsets are void, once Kafka's cluster or topics are other ones; else None."""
        self._other_kafka, self._clock = other_kafka, clock
        self._learner, self._progress, self._publisher, self._keeper = learner, progress, publisher, keeper
        self._start_feeder, self._refused = start_feeder, refused
        self._learned = LearningMetrics(learner, progress, event_types, metrics=metrics, health=health)
        self._batch_events, self._replay, self._adapt = batch_events, replay, adapt
        self._metrics, self._health, self._stop = metrics, health, stop
        self._lag = Lag(clock)
        self._skipped_in_a_row = 0
        self._good_version = publisher.published_version  # as it was before the last batch that was learned
        self._paired = PairedSums()  # since the last submission, against the gate's reference
        self._submitted: Future[Outcome] | None = None  # the outcome of the last submission, until it is heard
        self._good_reference: int | None = None  # the version whose weights learning should go back to
        self._reverted = False  # learning has gone back to the reference since the last submission
        self._dirty = False  # batches have been taken since the last submission
        self._waits_since: float | None = None  # since when learning waits for the store; None: it does not wait
        self._housekept = self._committed = self._submitted_at = -1e9

    def run(self) -> None:
        """On return, everything learned is published, unless the store is away. Raises: Fatal."""
        feed = Feed(
            self._start_feeder,
            self._progress.trained_through,
            metrics=self._metrics,
            health=self._health,
            stop=self._stop,
            clock=self._clock,
        )
        self._health.started()
        try:
            while not self._stop.is_set():
                self._check_publisher()
                self._check_kafka()
                if self._waits_for_store():
                    self._stop.wait(RECEIVE_S)
                    message = None
                else:
                    message = feed.receive(RECEIVE_S)
                if isinstance(message, MicroBatch):
                    self.take(message)
                elif isinstance(message, Refused):
                    self._refused.put(message)
                elif message is not None:
                    self._take_status(message)
                self._publish_if_due()
                self._keep_house(feed)
        finally:
            feed.close()
        self._publish_the_rest()

    def _waits_for_store(self) -> bool:
        """Whether no batch is to be taken for now: too many are in no version yet, or refused letters fill the
        memory."""
        unpublished = len(self._progress.batches) + self._publisher.unpublished
        self._metrics.unpublished.set(unpublished)
        why = ""
        if unpublished >= MOST_UNPUBLISHED:
            why = f"{unpublished} micro-batches are in no version yet"
        elif self._refused.full:
            why = "dead letters that their topic refuses are not there yet"
        if not why:
            self._waits_since = None
            self._health.set("learning")
            return False
        if self._waits_since is None:
            self._waits_since = self._clock()
            self._health.set("learning", f"waits for the store: {why}")
        return True

    def take(self, batch: MicroBatch) -> LearnResult:
        """Learns one micro-batch; afterwards the weights may go back to those of an earlier version."""
        started = time.perf_counter()
        self._lag.ends(batch.end_offsets)
        waiting = self._lag.events(self._progress.trained_through) / self._batch_events if self._adapt else 0.0
        effort = affordable(waiting, self._replay)
        before = self._publisher.published_version
        with self._publisher.reference.borrowed() as reference:
            result = self._learner.learn(batch, effort, reference)
        self._paired.add(result.paired)
        back_to = self._after_skipped() if result.taught.skipped else self._after_failing_versions()
        if not result.taught.skipped and result.taught.loss is not None:
            self._skipped_in_a_row = 0
            self._good_version = before
        self._progress.add(batch, result, effort, back_to)
        self._dirty = True
        self._learned.show(batch, result, effort, time.perf_counter() - started)
        return result

    def _after_skipped(self) -> int | None:
        """After a batch whose loss or gradient was not finite: the third in a row resets the weights.

        The step that spoilt the weights was itself finite and may have been published. So the last good version is the
        one that was published before the last batch with a finite gradient. Returns the version gone back to, or None.
        """
        self._metrics.batches_skipped.inc()
        self._skipped_in_a_row += 1
        log.error("a micro-batch had a non-finite loss or gradient: its events are counted, the weights are as before")
        good = self._good_version
        if self._skipped_in_a_row < SKIPPED_IN_A_ROW or good is None:
            return None
        self._skipped_in_a_row = 0
        return self._back_to(good, f"{SKIPPED_IN_A_ROW} in a row")

    def _after_failing_versions(self) -> int | None:
        """Where the gate has held back versions for long, learning goes back to its reference. Returns the version gone
        back to, or None."""
        self._hear_outcome()
        if self._good_reference is None:
            return None
        back_to = self._back_to(self._good_reference, "version after version was held back")
        self._good_reference = None
        self._reverted = back_to is not None
        return back_to

    def _back_to(self, version: int, why: str) -> int | None:
        """Puts the weights back to a version, or to the checkpoint before it. Returns which one; None where none can be
        read."""
        try:
            at, state = self._publisher.checkpoint(version)
        except (Damaged, NoSuchVersion, StoreUnavailable) as error:
            log.error("the weights stay for now: version %d cannot be read: %s", version, error)
            return None
        self._learner.reset_weights(state)
        self._metrics.weights_reset.inc()
        log.error("%s: back to the weights of version %d", why, at)
        return at

    def _hear_outcome(self) -> None:
        """Takes in the outcome of the last submission, once there is one. Where it failed, the publisher's `failure` is
        set."""
        if self._submitted is None or not self._submitted.done():
            return
        if self._submitted.exception() is None and not self._reverted:  # else the verdict is on weights that are gone
            self._good_reference = self._submitted.result().back_to
        self._submitted = None

    def _publish_if_due(self) -> None:
        """Submits what was learned, or nothing new where a snapshot is wanted. The latter not too often: while no
        snapshot can be written, because weights are not finite, it stays wanted."""
        wanted = self._dirty or (
            self._publisher.wants_snapshot and self._clock() - self._submitted_at >= HOUSEKEEPING_EVERY_S
        )
        if wanted and self._publisher.ready() and self._refused.kept:
            self._submit()

    def _submit(self) -> None:
        self._submitted_at = self._clock()
        self._hear_outcome()
        self._submitted = self._publisher.submit(
            Submission(
                update=self._learner.drain(),
                batches=self._progress.take_batches(),
                trained_through=dict(self._progress.trained_through),
                events_trained=self._progress.events_trained,
                metrics=self._progress.metrics(),
                paired=self._paired,
                reverted=self._reverted,
            )
        )
        self._paired, self._reverted, self._dirty = PairedSums(), False, False

    def _publish_the_rest(self) -> None:
        if not self._publisher.wait_idle(LAST_VERSION_S) or not self._refused.wait_kept(LAST_VERSION_S):
            log.error("stopping while the store is away: the events since version %d will be learned again",
                      self._publisher.version)  # fmt: skip
            return
        self._check_publisher()
        if self._dirty:
            self._submit()
            self._publisher.wait_idle(LAST_VERSION_S)
            self._check_publisher()

    def _check_publisher(self) -> None:
        if self._keeper.lost.is_set() or self._publisher.failure is not None:
            why = self._publisher.failure or "another trainer has taken the lease"
            raise Fatal(f"this trainer may not publish any more: {why}")

    def _check_kafka(self) -> None:
        if (why := self._other_kafka()) is not None:
            raise Fatal(f"Kafka was changed under this trainer: {why}; {OTHER_KAFKA}")

    def _keep_house(self, feed: Feed) -> None:
        now = self._clock()
        if now - self._housekept >= HOUSEKEEPING_EVERY_S:
            self._housekept = now
            self._show_age()
            self._show_lag(feed)
        if now - self._committed >= COMMIT_EVERY_S:
            self._committed = now
            feed.commit(self._progress.trained_through)

    def _take_status(self, status: FeederStatus) -> None:
        self._health.set("kafka", OK if status.healthy else status.message or "not reachable")
        self._lag.ends(status.end_offsets)

    def _show_age(self) -> None:
        if (made := self._publisher.published_at) is not None:
            self._metrics.model_age.set(max(0.0, time.time() - made))

    def _show_lag(self, feed: Feed) -> None:
        done = self._progress.trained_through
        for (topic, partition), behind in self._lag.of_partitions(done).items():
            self._metrics.lag_events.labels(topic, str(partition)).set(behind)
        waited_s = 0.0 if self._waits_since is None else self._clock() - self._waits_since
        self._metrics.lag_seconds.set(self._lag.seconds(done, max(feed.silent_s, waited_s)))
