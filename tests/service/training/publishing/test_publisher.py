"""What becomes of a submission: a snapshot or a delta, once, whatever the store does meanwhile."""

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from consumers.records import Offsets, TopicPartition
from model_store.chain import ancestors, load
from model_store.errors import BlobMissing, LeaseLost, NoSuchVersion, ParentMissing, StoreUnavailable
from model_store.lease import Lease
from model_store.memory_store import MemoryStore
from model_store.version import BlobRef, Manifest
from service.process import Fatal
from service.training.publishing import pointer, publisher, retry, snapshots
from service.training.publishing.submission import Submission
from tests.service.training.runs import RULES, Run, batches, hold, manifests, prove
from tests.service.training.streams import assert_same


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "RETRY_S", 0.01)
    monkeypatch.setattr(publisher, "ASK_EVERY_S", 0.01)
    monkeypatch.setattr("service.training.trainer.HOUSEKEEPING_EVERY_S", 0.0)


class Faulty(MemoryStore):
    """Raises what it is told to, once each, in order; where the name of a call stands, before or after it."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[tuple[str, Exception]] = []

    def _fault(self, where: str) -> None:
        if self.faults and self.faults[0][0] == where:
            raise self.faults.pop(0)[1]

    def put_blobs(self, blobs: Mapping[str, bytes]) -> dict[str, BlobRef]:
        self._fault("blobs")
        return super().put_blobs(blobs)

    def publish(self, manifest: Manifest, lease: Lease) -> None:
        self._fault("publish")
        super().publish(manifest, lease)
        self._fault("published")

    def move(self, version: int, reason: str, *, alias: str = "champion", lease: Lease | None = None) -> bool:
        self._fault("move")
        return super().move(version, reason, alias=alias, lease=lease)


class Dropping(MemoryStore):
    """A store that drops the next few calls of one name, as a connection does that breaks."""

    name, left = "", 0

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name != super().__getattribute__("name") or not super().__getattribute__("left"):
            return found

        def dropped(*_: object, **__: object) -> None:
            self.left -= 1
            raise StoreUnavailable(f"Redis: connection lost in {name}")

        return dropped


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kinds(store: MemoryStore) -> list[str]:
    return [manifest.kind for manifest in manifests(store)]


def test_a_chain_reads_back_as_the_learner_stands() -> None:
    store = MemoryStore()
    run = Run(store).go(batches(5))
    assert kinds(store) == ["snapshot"] + ["delta"] * 5
    assert store.live() == store.newest() == run.publisher.version == 6
    assert_same(load(store, 6).snapshot(), run.learner.snapshot())
    assert [manifest.parent for manifest in manifests(store)] == [None, 1, 2, 3, 4, 5]
    assert run.metric("model_version") == 6


def wished_for(run: Run) -> None:
    """Waits until the publisher has asked the store and found that a snapshot is needed."""
    until(lambda: run.publisher.wants_snapshot)


def test_a_request_is_answered_by_the_next_version() -> None:
    store = MemoryStore()
    run = Run(store)

    def ask() -> None:
        store.request_snapshot("a reader is lost")
        wished_for(run)

    run.go([*batches(2), ask, *batches(2, first=2)])
    assert kinds(store) == ["snapshot", "delta", "delta", "snapshot", "delta", "delta"]
    assert manifests(store)[3].batches == ()
    assert_same(load(store, 6).snapshot(), run.learner.snapshot())


def test_an_idle_trainer_notices_that_the_store_went_back_in_time() -> None:
    class Failing(MemoryStore):
        lost = False

        def newest(self) -> int | None:
            return 1 if self.lost else super().newest()

        def publish(self, manifest: Manifest, lease: Lease) -> None:
            self.lost = False
            super().publish(manifest, lease)

    store = Failing()
    run = Run(store)

    def lose() -> None:
        store.lost = True
        wished_for(run)

    run.go([*batches(2), lose, lambda: None])
    assert kinds(store) == ["snapshot", "delta", "delta", "snapshot"]
    assert store.live() == run.publisher.version == 4
    assert manifests(store)[3].parent == 1
    assert len(manifests(store)[3].batches) == 2  # of the versions that were lost


def test_a_snapshot_after_so_many_deltas() -> None:
    store = MemoryStore()
    run = Run(store, rules=dataclasses.replace(RULES, chain_limit=2)).go(batches(6))
    assert kinds(store) == ["snapshot", *["delta", "delta", "snapshot"] * 3]
    assert_same(load(store, 10).snapshot(), run.learner.snapshot())


def test_a_snapshot_is_the_version_before_written_out_whole() -> None:
    store = MemoryStore()
    Run(store, rules=dataclasses.replace(RULES, chain_limit=2)).go(batches(2))
    before, whole = manifests(store)[-2:]
    assert (before.kind, whole.kind) == ("delta", "snapshot")
    assert (whole.parent, whole.batches) == (before.version, ())
    assert (whole.trained_through, whole.events_trained) == (before.trained_through, before.events_trained)
    assert_same(load(store, whole.version).snapshot(), load(store, before.version).snapshot())
    assert store.live() == whole.version


def test_a_snapshot_once_the_deltas_are_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "LEAST_CHAIN_BYTES", 1)
    store = MemoryStore()
    Run(store, rules=dataclasses.replace(RULES, chain_bytes_ratio=1e-6)).go(batches(4))
    assert kinds(store) == ["snapshot", *["delta", "snapshot"] * 4]


def test_a_snapshot_once_the_last_one_is_old() -> None:
    store = MemoryStore()
    Run(store, rules=dataclasses.replace(RULES, snapshot_interval_s=1e-9)).go(batches(2))
    assert kinds(store) == ["snapshot", *["delta", "snapshot"] * 2]


def test_old_versions_go_after_a_snapshot() -> None:
    store = MemoryStore()
    Run(store, rules=dataclasses.replace(RULES, chain_limit=1, keep_snapshots=1, grace_s=0.0)).go(batches(6))
    assert len(store.versions()) < 5
    assert store.newest() == 13


@pytest.mark.parametrize("where", ["blobs", "publish", "published", "move"])
def test_a_store_that_is_away_is_tried_again_and_nothing_is_lost(where: str) -> None:
    store = Faulty()
    away: list[tuple[str, Exception]] = [(where, StoreUnavailable("Redis: away"))] * 3
    run = Run(store).go([*batches(2), lambda: store.faults.extend(away), *batches(3, first=2)])
    assert not store.faults
    assert store.versions() == [1, 2, 3, 4, 5, 6]
    assert kinds(store) == ["snapshot"] + ["delta"] * 5
    assert_same(load(store, 6).snapshot(), run.learner.snapshot())
    assert run.metric("publish_failures_total") == 3
    assert run.health.report()[0]


def test_a_lost_answer_is_repeated_with_the_same_bytes() -> None:
    store = Faulty()
    run = Run(store)

    def lose() -> None:
        store.faults = [("published", StoreUnavailable("the answer was lost"))]

    run.go([lose, *batches(2)])
    assert kinds(store) == ["snapshot", "delta", "delta"]
    assert_same(load(store, 3).snapshot(), run.learner.snapshot())


@pytest.mark.parametrize("lost", [ParentMissing("gone"), BlobMissing("gone")])
def test_what_the_store_has_lost_is_made_good_by_a_snapshot(lost: Exception) -> None:
    store = Faulty()
    run = Run(store).go([*batches(1), lambda: store.faults.append(("publish", lost)), *batches(2, first=1)])
    assert kinds(store) == ["snapshot", "delta", "snapshot", "delta"]
    assert_same(load(store, 4).snapshot(), run.learner.snapshot())


def lose_after(store: MemoryStore, version: int) -> None:
    """A failover to a replica that had not got so far."""
    for lost in [each for each in store.versions() if each > version]:
        del store._manifests[lost], store._summaries[lost]
    store._newest = version
    store._aliases["champion"] = version


@pytest.mark.parametrize("idle", [False, True])
def test_versions_that_the_store_has_lost_leave_no_hole_in_the_record(idle: bool) -> None:
    """Whether the trainer finds out by publishing or, where nothing new comes, by asking."""
    store, fed = MemoryStore(), batches(8)
    run = Run(store)

    def lose() -> None:
        lose_after(store, 4)
        if idle:
            wished_for(run)

    run.go([*fed[:6], lose, *fed[6:]])
    mended = next(manifest for manifest in manifests(store) if manifest.version > 4)
    assert (mended.kind, mended.parent) == ("snapshot", 4)
    learned = [batch.ranges for manifest in manifests(store) for batch in manifest.batches]
    assert learned == [tuple(tuple(r) for r in batch.ranges) for batch in fed]
    assert_same(load(store, store.newest() or 0).snapshot(), run.learner.snapshot())
    assert prove(store, store.newest() or 0, fed, 0).difference is None


@pytest.mark.parametrize(("before", "left"), [(1, 2), (2, 2), (2, 3), (2, 1)])
def test_a_lost_snapshot_leaves_no_hole_either(before: int, left: int) -> None:
    """Version 3 is version 2 written out whole. 1 is from before this run."""
    store, fed = MemoryStore(), batches(5)
    Run(store).go([])
    rules = dataclasses.replace(RULES, chain_limit=2)
    run = Run(store, rules=rules).go([*fed[:before], lambda: lose_after(store, left), *fed[before:]])
    learned = [batch.ranges for manifest in manifests(store) for batch in manifest.batches]
    assert learned == [tuple(tuple(r) for r in batch.ranges) for batch in fed]
    assert_same(load(store, store.newest() or 0).snapshot(), run.learner.snapshot())
    assert prove(store, store.newest() or 0, fed, 0).difference is None


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(
    "call",
    [
        *("newest", "put_blobs", "publish", "move", "take_snapshot_request", "pinned_since", "promote"),
        *("aliases", "live_since", "summaries", "delete"),
    ],
)
def test_whatever_call_is_dropped_after_a_failover_it_goes_on_by_itself(
    call: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pointer, "PIN_ASKED_EVERY_S", 0.0)
    store, fed = Dropping(), batches(12)
    rules = dataclasses.replace(RULES, chain_limit=2, keep_snapshots=2, grace_s=0.0, promote_after_s=1e-9)
    run = Run(store, rules=rules)

    def fail_over() -> None:
        lose_after(store, 4)
        store.rollback(4, "by hand")
        store.name, store.left = call, times

    run.go([*fed[:4], fail_over, *fed[4:]])
    assert store.left == 0, "the call was never made"
    assert run.publisher.failure is None
    checks: Any = run.health.report()[1]["checks"]
    assert set(checks.values()) == {"ok"}
    newest = store.newest() or 0
    assert store.live() == newest
    assert_same(load(store, newest).snapshot(), run.learner.snapshot())
    learned = [batch.ranges for each in reversed(list(ancestors(store, newest))) for batch in each.batches]
    assert learned == [tuple(tuple(r) for r in batch.ranges) for batch in fed]


def test_a_wish_is_not_lost_with_the_call_after_it() -> None:
    """Taken from the store, and then the connection breaks."""
    store = Dropping()
    run = Run(store)

    def ask() -> None:
        store.name, store.left = "newest", 10**9
        store.request_snapshot("a reader is lost")
        until(lambda: store._request is None)
        store.left = 0
        wished_for(run)

    run.go([*batches(2), ask, *batches(1, first=2)])
    assert kinds(store) == ["snapshot", "delta", "delta", "snapshot", "delta"]


def test_a_silent_store_does_not_hold_up_learning() -> None:
    """What is asked of it while nothing is under way is asked on the publisher's thread."""
    store, silent, asked, answered = MemoryStore(), threading.Event(), threading.Event(), threading.Event()
    original = store.take_snapshot_request

    def take_snapshot_request(lease: Lease) -> str | None:
        if silent.is_set():
            asked.set()
            assert answered.wait(20.0)
        return original(lease)

    def fall_silent() -> None:
        silent.set()
        assert asked.wait(20.0)

    store.take_snapshot_request = take_snapshot_request  # type: ignore[method-assign]
    run, learned = Run(store, rules=dataclasses.replace(RULES, interval_s=3600.0)), list[Offsets]()

    def look() -> None:
        learned.append(dict(run.progress.trained_through))
        answered.set()

    run.go([*batches(1), fall_silent, *batches(3, first=1), look])
    assert learned == [{TopicPartition("events", 0): 80}]
    assert_same(load(store, store.newest() or 0).snapshot(), run.learner.snapshot())


def test_a_store_emptied_before_the_pointer_moved() -> None:
    store = Faulty()

    def empty() -> None:
        store.faults.append(("move", NoSuchVersion("version 3 is not in the store")))

    def forget() -> None:
        store._manifests.clear()
        store._summaries.clear()
        store._newest = None

    original = store._fault

    def fault(where: str) -> None:
        try:
            original(where)
        except NoSuchVersion:
            forget()
            raise

    store._fault = fault  # type: ignore[method-assign]
    run = Run(store).go([*batches(1), empty, *batches(2, first=1)])
    assert [(m.version, m.kind) for m in manifests(store)] == [(3, "snapshot"), (4, "delta")]
    assert_same(load(store, 4).snapshot(), run.learner.snapshot())


def test_a_pinned_pointer_stays() -> None:
    store = MemoryStore()
    Run(store).go([*batches(2), lambda: store.rollback(1, "by hand"), *batches(2, first=2)])
    assert store.newest() == 5
    assert store.live() == store.pinned() == 1


class Clock:
    """The store's, which may be ahead of ours."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def test_a_pin_that_has_lasted_is_let_go(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(pointer, "PIN_ASKED_EVERY_S", 0.0)
    clock = Clock()
    store = MemoryStore(clock)
    seen: list[tuple[int | None, int | None, int | None]] = []

    def look() -> None:
        seen.append((store.newest(), store.live(), store.pinned()))

    def pin() -> None:
        clock.ahead = -100.0
        store.rollback(1, "by hand")
        clock.ahead = 0.0

    rules = dataclasses.replace(RULES, promote_after_s=50.0)
    run = Run(store, rules=rules).go(
        [*batches(2), lambda: store.rollback(1, "by hand"), *batches(2, first=2), look, pin, *batches(2, first=4), look]
    )
    assert seen == [(5, 1, 1), (7, 7, None)]  # pinned just now; pinned long ago
    assert [entry[1:] for entry in store.log() if entry.what == "promote"] == [
        ("promote", "champion", 6, "pinned for 50 s")
    ]
    assert "the pointer was pinned for 50 s: version 6 is live" in caplog.text
    assert run.metric("versions_held_back_total") == 2
    assert "challenger" not in store.aliases()


def test_without_the_setting_a_pin_stays_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pointer, "PIN_ASKED_EVERY_S", 0.0)
    clock = Clock()
    clock.ahead = -1e6
    store = MemoryStore(clock)
    Run(store).go([*batches(2), lambda: store.rollback(1, "by hand"), *batches(2, first=2)])
    assert (store.live(), store.pinned(), store.aliases()["challenger"]) == (1, 1, 5)


def test_a_pin_is_let_go_under_the_lease_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another trainer takes over in the very moment in which this one finds that the pin has lasted."""
    monkeypatch.setattr(pointer, "PIN_ASKED_EVERY_S", 0.0)

    class Takeover(MemoryStore):
        def pinned_since(self) -> float | None:
            hold(self)
            return super().pinned_since()

    clock = Clock()
    store = Takeover(clock)
    clock.ahead = -100.0
    run = Run(store, rules=dataclasses.replace(RULES, promote_after_s=50.0))
    with pytest.raises(Fatal, match="the lease"):
        run.go([*batches(1), lambda: store.rollback(1, "by hand"), *batches(2, first=1)])
    assert (store.live(), store.pinned()) == (1, 1)


def test_a_lost_lease_ends_it() -> None:
    store = MemoryStore()
    run = Run(store)
    hold(store)  # another one
    run.publisher.start()
    run.publisher.submit(Submission(run.learner.snapshot(), (), {}, 0, {}))
    assert run.publisher.wait_idle(5.0)
    run.publisher.stop()
    assert isinstance(run.publisher.failure, LeaseLost)
    assert not run.publisher.ready()
    assert store.versions() == []


def test_an_idle_trainer_that_lost_the_lease_takes_no_wish_away_and_ends() -> None:
    store = MemoryStore()
    run = Run(store)
    lease = hold(store)  # another one
    store.request_snapshot("version 7 is damaged")
    run.publisher.start()
    until(lambda: run.publisher.failure is not None)
    run.publisher.stop()
    assert isinstance(run.publisher.failure, LeaseLost)
    assert not run.publisher.ready()
    assert store.take_snapshot_request(lease) == "version 7 is damaged"


def test_one_version_at_a_time() -> None:
    run = Run(MemoryStore())
    submission = Submission(run.learner.snapshot(), (), {}, 0, {})
    run.publisher.submit(submission)  # its thread has not begun
    assert not run.publisher.ready()
    with pytest.raises(RuntimeError, match="under way"):
        run.publisher.submit(submission)


def test_a_bug_in_publishing_is_a_failure_of_the_whole() -> None:
    store = Faulty()
    store.faults = [("publish", ZeroDivisionError("oops"))]
    run = Run(store)
    run.publisher.start()
    run.publisher.submit(Submission(run.learner.snapshot(), (), {}, 0, {}))
    assert run.publisher.wait_idle(5.0)
    run.publisher.stop()
    assert "oops" in str(run.publisher.failure)
