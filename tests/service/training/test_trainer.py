"""The trainer's loop, and how it begins and ends."""

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, cast

import pytest

from consumers.feeder import FeederConfig
from consumers.feeder_process import Feeder
from consumers.letters import DeadLetter, Refused
from consumers.micro_batch import MicroBatch
from consumers.pipe import FeederDied, FeederStatus
from consumers.records import OffsetRange, TopicPartition
from consumers.shelf import MemoryShelf, ShelfAway
from model_store.chain import load
from model_store.errors import StoreUnavailable
from model_store.lease import Lease, LeaseKeeper
from model_store.memory_store import MemoryStore
from model_store.version import Manifest
from service.health import Health
from service.metrics import TrainerMetrics
from service.model.channel import Lesson, Taught
from service.model.channels.learning_network import Step
from service.model.config import ModelConfig
from service.model.losses import Sample
from service.process import Fatal
from service.settings import TrainerSettings
from service.training import main, refused_letters, trainer
from service.training.effort import FULL, Effort
from service.training.feed import RESTARTS_IN_A_ROW
from service.training.heartbeat import KILLED_AFTER_S
from service.training.learner import LearnResult
from service.training.publishing import retry
from service.training.publishing.submission import Outcome as Published
from service.training.publishing.submission import Submission
from service.training.reference import Reference
from service.training.trainer import RECEIVE_S, SKIPPED_IN_A_ROW
from tests.service.model.configs import network_of
from tests.service.training import runs
from tests.service.training.runs import CONFIG, KAFKA, FakeFeeder, Run, batches, configured, hold, manifests, rejects
from tests.service.training.streams import assert_same

HERE = TopicPartition("events", 0)


def test_version_1_is_there_before_any_event(monkeypatch: pytest.MonkeyPatch) -> None:
    store, stop, began_with = MemoryStore(), threading.Event(), []

    class Silent(FakeFeeder):
        def __init__(self) -> None:
            self.stopped, self.commits = False, []

        def receive(self, timeout_s: float) -> None:
            stop.set()

    def start(config: FeederConfig) -> Feeder:
        began_with.append((dict(config.start), store.live()))
        return cast(Feeder, Silent())

    def small(settings: TrainerSettings) -> ModelConfig:
        return CONFIG

    monkeypatch.setattr(main, "start_feeder", start)
    monkeypatch.setattr(main, "model_config", small)
    settings, lease = TrainerSettings(device="cpu"), hold(store)
    keeper, health = LeaseKeeper(store, lease, 60.0), Health("trainer")
    main._lead(settings, store, lease, keeper, KAFKA, "run", TrainerMetrics(), health, stop, lambda: None)  # type: ignore[arg-type]
    assert began_with == [({}, 1)]
    first = manifests(store)[0]
    assert (first.kind, first.parent, first.events_trained, first.batches) == ("snapshot", None, 0, ())


def test_every_batch_is_in_the_version_that_learned_it() -> None:
    store = MemoryStore()
    run = Run(store, replay=2).go(batches(3))
    versions = manifests(store)
    assert [m.trained_through for m in versions] == [{}, *({"events": {"0": n}} for n in (20, 40, 60))]
    assert [m.batches[0].ranges for m in versions[1:]] == [(("events", 0, n, n + 20),) for n in (0, 20, 40)]
    assert [m.batches[0].replay for m in versions[1:]] == [2, 2, 2]
    assert versions[-1].events_trained == run.metric("model_events_trained") == run.metric("events_trained_total")
    assert run.metric("model_users") == run.learner.users.size > 0
    assert run.metric("model_items") == run.learner.recommender.size > 0
    assert run.feeders[0].stopped
    assert run.feeders[0].commits


def test_a_version_also_when_only_offsets_moved() -> None:
    store = MemoryStore()
    run = Run(store).go([*batches(1), rejects(20, 30)])
    last = manifests(store)[-1]
    assert (last.version, last.kind, last.trained_through) == (3, "delta", {"events": {"0": 30}})
    assert last.events_trained == manifests(store)[-2].events_trained
    assert_same(load(store, 3).snapshot(), run.learner.snapshot())
    assert run.metric("events_rejected_total", reason="not json") == 10


def test_a_batch_from_behind_ends_the_trainer_unpublished() -> None:
    store = MemoryStore()
    with pytest.raises(ValueError, match="everything before 20 is learned"):
        Run(store).go([*batches(1), *batches(1)])
    assert store.newest() == 2


def test_what_is_learned_while_a_version_is_under_way_goes_into_the_next() -> None:
    store = MemoryStore()
    run = Run(store)
    run.publisher._rules = dataclasses.replace(run.publisher._rules, interval_s=3600.0)
    run.go(batches(4))  # the last version is not held back
    assert store.versions() == [1, 2]
    assert len(manifests(store)[1].batches) == 4
    assert_same(load(store, 2).snapshot(), run.learner.snapshot())


def test_a_lost_lease_ends_the_trainer() -> None:
    store = MemoryStore()
    run = Run(store)

    def take_over() -> None:
        hold(store)

    with pytest.raises(Fatal, match="may not publish any more: the lease"):
        run.go([*batches(1), take_over, *batches(2, first=1)])
    assert store.newest() == 2
    assert run.feeders[0].stopped


def test_a_keeper_that_lost_the_lease_ends_the_trainer() -> None:
    store = MemoryStore()
    run = Run(store)
    with pytest.raises(Fatal, match="another trainer has taken the lease"):
        run.go([*batches(1), run.keeper.lost.set, *batches(2, first=1)])
    assert store.newest() == 2


def test_a_trainer_that_stops_while_the_store_is_away_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "LAST_VERSION_S", 0.05)

    class Away(MemoryStore):
        away = False

        def publish(self, manifest: Manifest, lease: Lease) -> None:
            if self.away:
                raise StoreUnavailable("Redis: away")
            super().publish(manifest, lease)

    store = Away()
    run = Run(store)

    def leave() -> None:
        store.away = True

    wait = run.publisher.wait_idle

    def wait_idle(timeout_s: float) -> bool:
        return wait(min(timeout_s, 0.2))

    monkeypatch.setattr(run.publisher, "wait_idle", wait_idle)
    run.go([*batches(1), leave, *batches(1, first=1)])
    assert run.stop.is_set()
    assert store.versions() == [1, 2]
    again = Run(store)
    assert again.progress.trained_through == {HERE: 20}  # they will be learned again


def poison(monkeypatch: pytest.MonkeyPatch, run: Run, batches: int) -> None:
    """The next so many gradients are not finite."""
    network, left = network_of(run.learner), iter(range(batches))
    descend = network.descend

    def poisoned(step: Step, sample: Sample, lesson: Lesson) -> Taught:
        if next(left, None) is None:
            return descend(step, sample, lesson)
        return Taught(skipped=True)

    monkeypatch.setattr(network, "descend", poisoned)


def test_three_skipped_batches_in_a_row_reset_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    run = Run(store)
    run.go([*batches(2), lambda: poison(monkeypatch, run, SKIPPED_IN_A_ROW), *batches(SKIPPED_IN_A_ROW + 2, first=2)])
    batches_of = [m.batches[0] for m in manifests(store) if m.batches][2:]
    skipped, back_to = zip(*((batch.skipped, batch.weights_of_version) for batch in batches_of), strict=True)
    assert skipped == (True, True, True, False, False)
    assert back_to == (None, None, 2, None, None)  # before the last batch that was learned
    assert run.metric("weights_reset_total") == 1
    assert run.metric("batches_skipped_total") == SKIPPED_IN_A_ROW
    assert manifests(store)[-1].trained_through == {"events": {"0": 140}}
    assert_same(load(store, 8).snapshot(), run.learner.snapshot())


def test_weights_that_a_published_step_has_spoilt_are_left_behind() -> None:
    """The step was finite, so its version went out; what comes after it learns again."""
    run = Run(MemoryStore())

    def spoil() -> None:
        network_of(run.learner).dense["out_weight"].fill_(3e38)

    run.go([*batches(3), spoil, *batches(SKIPPED_IN_A_ROW + 3, first=3)])
    assert run.metric("weights_reset_total") == 1
    assert run.metric("batches_skipped_total") == SKIPPED_IN_A_ROW
    assert float(network_of(run.learner).dense["out_weight"].abs().max()) < 1e3


def test_fewer_skipped_batches_leave_the_weights_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(MemoryStore())
    learn, calls = run.learner.learn, iter([True, True, False, True, True, False])

    def sometimes(batch: MicroBatch, effort: Effort = FULL, reference: Reference | None = None) -> LearnResult:
        result = learn(batch, effort, reference)
        return dataclasses.replace(result, taught=Taught(skipped=True)) if next(calls) else result

    monkeypatch.setattr(run.learner, "learn", sometimes)
    run.go(batches(6))
    assert run.metric("batches_skipped_total") == 4
    assert run.metric("weights_reset_total") == 0


def test_the_version_the_weights_went_back_to_is_the_one_that_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the newest number, where the newest version is damaged."""
    store = MemoryStore()
    Run(store).go(batches(3))
    store.tamper(manifest=(4, b"{}"))
    run = Run(store)
    run.publisher._rules = dataclasses.replace(run.publisher._rules, interval_s=3600.0)
    run.publisher._submitted_at = run.publisher._clock()  # nothing is published before the end
    run.go([lambda: poison(monkeypatch, run, SKIPPED_IN_A_ROW), *batches(SKIPPED_IN_A_ROW, first=2)])
    assert manifests_of(store, 5).batches[-1].weights_of_version == 3


def test_weights_go_back_once_for_versions_that_failed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that is under way while they go back was judged by weights that are gone."""
    store = MemoryStore()
    run = Run(store).go(batches(1))
    again, outcomes = Run(store), list[Future[Published]]()

    def ready() -> bool:
        """The outcome comes just after the batch was learned, and before the next version is handed over."""
        if outcomes and not outcomes[-1].done():
            outcomes[-1].set_result(Published(2, back_to=2 if len(outcomes) <= 2 else None))
        return True

    def submit(submission: Submission) -> Future[Published]:
        outcomes.append(Future())
        return outcomes[-1]

    monkeypatch.setattr(again.publisher, "ready", ready)
    monkeypatch.setattr(again.publisher, "submit", submit)
    again.go(batches(5, first=1))
    assert len(outcomes) >= 4
    assert again.metric("weights_reset_total") == 1
    assert run.metric("weights_reset_total") == 0


def manifests_of(store: MemoryStore, version: int) -> Manifest:
    (data,) = store.manifest_bytes([version])
    assert data is not None
    return Manifest.from_json(data)


def test_a_dead_feeder_is_replaced_by_one_that_goes_on() -> None:
    store = MemoryStore()
    steps = batches(4)
    run = Run(store).go([*steps[:2], FeederDied("killed")], [*steps[2:]])
    assert run.started_at == [{}, {HERE: 40}]
    assert all(feeder.stopped for feeder in run.feeders)
    assert run.metric("feeder_restarts_total") == 1
    whole = MemoryStore()
    Run(whole).go(steps)
    assert_same(load(store, 5).snapshot(), load(whole, 5).snapshot())


def test_a_feeder_that_dies_again_and_again_ends_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    run = Run(store)
    monkeypatch.setattr(run.stop, "wait", lambda timeout: False)
    with pytest.raises(Fatal, match=rf"died {RESTARTS_IN_A_ROW + 1} times in a row: no such file"):
        run.go(*[[FeederDied("no such file")]] * (RESTARTS_IN_A_ROW + 1))
    assert len(run.feeders) == RESTARTS_IN_A_ROW + 1
    assert all(feeder.stopped for feeder in run.feeders)
    assert store.versions() == [1]


def test_a_feeder_that_sent_something_has_all_its_lives_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(MemoryStore())
    monkeypatch.setattr(run.stop, "wait", lambda timeout: False)
    lives: list[list[runs.Step]] = [[batch, FeederDied("killed")] for batch in batches(RESTARTS_IN_A_ROW + 3)]
    run.go(*lives, [])
    assert run.metric("feeder_restarts_total") == RESTARTS_IN_A_ROW + 3


class Clock:
    """Seconds, as told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def silence(self, seconds: float) -> list[Callable[[], None]]:
        """What a feeder hands over that says nothing for so long."""
        return [lambda: self.spend(RECEIVE_S)] * round(seconds / RECEIVE_S)

    def spend(self, seconds: float) -> None:
        self.now += seconds


def test_a_feeder_that_falls_silent_is_said_and_then_replaced_by_one_that_goes_on() -> None:
    store, fed, clock, seen = MemoryStore(), batches(4), Clock(), list[tuple[str, float]]()
    run = Run(store, clock=clock)

    def look() -> None:
        checks = cast("dict[str, str]", run.health.report()[1]["checks"])
        seen.append((checks["feeder"], run.metric("consumer_lag_seconds")))

    silent = [*clock.silence(4), look, *clock.silence(8), look, *clock.silence(KILLED_AFTER_S - 11)]
    run.go([*fed[:2], *silent], [*clock.silence(2), look, FeederStatus(True), *clock.silence(1), look, *fed[2:]])
    said, lag = zip(*seen, strict=True)
    assert [said[0], said[3]] == ["ok", "ok"]
    assert "the feeder has been silent for 10 s" in said[1]
    assert "the feeder has been silent for 25 s" in said[2]  # until the new one has said something
    assert (lag[0], lag[3]) == (0.0, 0.0)
    assert 11.0 < lag[1] < 12.5
    assert 30.5 < lag[2] < 32.5
    assert run.started_at == [{}, {HERE: 40}]
    assert all(feeder.stopped for feeder in run.feeders)
    assert run.metric("feeder_restarts_total") == 1
    assert manifests(store)[-1].trained_through == {"events": {"0": 80}}


def test_silent_feeders_are_replaced_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever keeps them from speaking may pass by itself."""
    clock = Clock()
    run = Run(MemoryStore(), clock=clock)
    monkeypatch.setattr(run.stop, "wait", lambda timeout: False)
    run.go(*[clock.silence(KILLED_AFTER_S + 1)] * (RESTARTS_IN_A_ROW + 3), batches(1))
    assert run.metric("feeder_restarts_total") == RESTARTS_IN_A_ROW + 3
    assert run.progress.trained_through == {HERE: 20}


def test_while_the_trainer_learns_the_silence_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    run = Run(MemoryStore(), clock=clock)
    learn = run.learner.learn

    def slow(*given: Any) -> LearnResult:
        clock.spend(2 * KILLED_AFTER_S)
        return learn(*given)

    monkeypatch.setattr(run.learner, "learn", slow)
    run.go([*batches(2), *clock.silence(1), *batches(1, first=2), *clock.silence(1)])
    assert run.health.report()[0]
    assert run.metric("feeder_restarts_total") == 0


def test_learning_waits_for_a_store_that_is_away_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipe pushes back meanwhile, and no manifest grows beyond all bounds."""
    monkeypatch.setattr(trainer, "MOST_UNPUBLISHED", 4)
    monkeypatch.setattr(FakeFeeder, "patience_s", 0.0)
    monkeypatch.setattr(retry, "RETRY_S", 0.01)
    back = threading.Event()

    class Away(MemoryStore):
        away = False

        def publish(self, manifest: Manifest, lease: Lease) -> None:
            if self.away and not back.is_set():
                raise StoreUnavailable("Redis: away")
            super().publish(manifest, lease)

    store, fed, clock = Away(), batches(12), Clock()
    run = Run(store, clock=clock)
    seen: list[tuple[float, str, bool]] = []

    def come_back(timeout: float) -> bool:
        """In place of waiting, once learning does."""
        clock.spend(1.0)
        if not back.is_set() and clock.now > 1020.0:
            checks = cast("dict[str, str]", run.health.report()[1]["checks"])
            seen.append((run.metric("unpublished_batches"), checks["learning"], run.health.report()[0]))
            assert run.metric("consumer_lag_seconds") > 5.0
            back.set()
        return False

    monkeypatch.setattr(run.stop, "wait", come_back)
    run.go([lambda: setattr(store, "away", True), *fed])
    assert seen == [(4, "waits for the store: 4 micro-batches are in no version yet", False)]
    assert run.health.report()[0]
    assert max(len(manifest.batches) for manifest in manifests(store)) <= 4
    assert manifests(store)[-1].trained_through == {"events": {"0": 240}}
    whole = MemoryStore()
    Run(whole).go(fed)
    assert_same(load(store, store.newest() or 0).snapshot(), load(whole, whole.newest() or 0).snapshot())


def test_what_the_feeder_says_of_kafka_is_shown() -> None:
    run = Run(MemoryStore())
    seen: list[object] = []

    def look() -> None:
        seen.append(run.health.report()[1]["checks"])

    run.go([FeederStatus(False, "broker away"), look, FeederStatus(True, end_offsets={HERE: 90}), look, *batches(1)])
    assert [cast("dict[str, str]", checks)["kafka"] for checks in seen] == ["broker away", "ok"]


class AwayShelf(MemoryShelf):
    away = True

    def put(self, refused: Refused) -> int:
        if self.away:
            raise ShelfAway("Redis: gone fishing")
        return super().put(refused)


def refused(value: bytes) -> Refused:
    return Refused(DeadLetter("events", None, value, ()), "no key")


def test_a_version_is_published_only_when_the_refused_letters_of_what_it_covers_are_on_the_shelf() -> None:
    store, shelf, seen = MemoryStore(), AwayShelf(), []
    run = Run(store, shelf=shelf)
    first, second, third = batches(3)

    def learned_and_not_published() -> None:
        seen.append((dict(run.progress.trained_through), store.versions()))
        shelf.away = False
        assert run.refused.wait_kept(10)

    run.go([first, refused(b"a"), second, learned_and_not_published, third])
    assert seen == [({HERE: 40}, [1, 2])]
    assert [kept.letter.value for _, kept in shelf.page("events", 9)] == [b"a"]
    assert [m.trained_through["events"]["0"] for m in manifests(store)[1:]] == [20, 40, 60]


def test_a_trainer_that_stops_while_the_shelf_is_away_publishes_nothing_that_it_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trainer, "LAST_VERSION_S", 0.1)
    store = MemoryStore()
    first, second = batches(2)
    Run(store, shelf=AwayShelf()).go([first, refused(b"a"), second])
    assert [m.trained_through for m in manifests(store)[1:]] == [{"events": {"0": 20}}]


def test_learning_waits_where_too_many_refused_letters_wait_for_the_shelf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused_letters, "PENDING_LETTERS", 2)
    shelf = AwayShelf()
    run = Run(MemoryStore(), shelf=shelf)
    said: list[object] = []

    def come_back() -> None:
        checks = run.health.report()[1]["checks"]
        assert isinstance(checks, dict)
        said.append(checks["learning"])
        shelf.away = False

    waits = run.stop.wait

    def wait(timeout: float | None = None) -> bool:  # the trainer's own, while it takes nothing
        if timeout == RECEIVE_S and shelf.away:
            come_back()
        return waits(timeout)

    monkeypatch.setattr(run.stop, "wait", wait)
    run.go([refused(b"a"), refused(b"b"), *batches(1)])
    assert said == ["waits for the store: dead letters that their topic refuses are not there yet"]
    assert run.progress.trained_through == {HERE: 20}
    assert shelf.count("events") == 2


def test_the_lag_and_less_replay_when_far_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "HOUSEKEEPING_EVERY_S", 0.0)
    store = MemoryStore()
    far = FeederStatus(True, end_offsets={HERE: 2030})  # two batches are 2,000 events
    run = Run(store).go([*batches(1), far, *batches(2, first=1)])
    assert [m.batches[0].replay for m in manifests(store) if m.batches] == [1, 0, 1]
    assert run.metric("consumer_lag_events", topic="events", partition="0") == 2030 - 60


def test_a_batch_beyond_the_limits_is_learned_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(MemoryStore(), config=configured(max_items=3, max_users=3)).go(batches(3))
    assert run.progress.trained_through == {HERE: 60}
    assert run.metric("events_trained_total") == 60
    said = [record.getMessage() for record in caplog.records if "rows are in use" in record.getMessage()]
    assert [line.split()[0] for line in said] == ["TIDEMILL_MAX_ITEMS", "TIDEMILL_MAX_USERS"]
    told: Any = run.health.report()[1]["beyond_limits"]
    assert len(told) == 2


def test_expired_records_are_counted() -> None:
    batch = dataclasses.replace(rejects(90, 95), expired={HERE: 70}, ranges=(OffsetRange("events", 0, 90, 95),))
    run = Run(MemoryStore()).go([*batches(1), batch])
    assert run.metric("events_expired_total", topic="events", partition="0") == 70


def test_kafka_changed_under_a_trainer_ends_it_at_once() -> None:
    store, changed = MemoryStore(), list[str]()
    run = Run(store, other_kafka=lambda: changed[0] if changed else None)
    one, two = batches(2)
    with pytest.raises(Fatal, match=r"topic events was made anew.*--fresh"):
        run.go([one, lambda: changed.append("topic events was made anew"), two])
    assert manifests(store)[-1].trained_through == {"events": {"0": 20}}  # of the second one nothing
    assert run.feeders[0].stopped


def test_a_lease_that_cannot_be_renewed_shows_in_health() -> None:
    class Store(MemoryStore):
        away = False

        def renew(self, lease: Lease, ttl: float) -> bool:
            if self.away:
                raise StoreUnavailable("Redis: gone")
            return super().renew(lease, ttl)

    store, health = Store(), Health("trainer")
    keeper = LeaseKeeper(main._ShownLeases(store, health), hold(store), 60.0)
    said = []
    for store.away in (False, True, False):
        keeper.renew()
        said.append(dict(health.report()[1]["checks"])["lease"])  # type: ignore[call-overload]
    assert said == ["ok", "not renewed: Redis: gone", "ok"]


def test_a_free_lease_is_taken_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    health = Health("trainer")
    assert main._lease(MemoryStore(), "a", 5.0, health, threading.Event()) is not None
    assert health.report()[1]["checks"] == {}
    assert not caplog.records


def test_waiting_for_the_lease_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "LEASE_PATIENCE_S", 0.01)
    store, health, stop = MemoryStore(), Health("trainer"), threading.Event()
    hold(store)
    threading.Timer(0.3, stop.set).start()
    assert main._lease(store, "b", 5.0, health, stop) is None
    assert "waiting for the lease" in str(health.report()[1]["checks"])
