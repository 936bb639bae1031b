"""One version: once, whatever the store does meanwhile, and nothing where none can be made."""

import threading

import numpy as np
import pytest

from model_store.chain import load
from model_store.errors import (
    DamagedManifest,
    InvalidUpdate,
    LeaseLost,
    ModelStoreError,
    ParentMissing,
    StoreUnavailable,
)
from model_store.lease import Lease
from model_store.memory_store import MemoryStore
from model_store.version import BatchRecord, Manifest
from model_store.weights import Rows, State, Update
from service.health import Health
from service.metrics import TrainerMetrics
from service.training.publishing import retry
from service.training.publishing.draft import Draft
from service.training.publishing.lineage import Lineage
from service.training.publishing.pointer import Pointer
from service.training.publishing.release import Releaser
from service.training.publishing.retry import Retry
from service.training.publishing.submission import Standing, Submission
from tests.service.training.runs import ORIGIN, hold, manifests
from tests.service.training.streams import assert_same


class Store(MemoryStore):
    """Answers the next attempts to publish with these errors."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[ModelStoreError] = []

    def publish(self, manifest: Manifest, lease: Lease) -> None:
        if self.errors:
            raise self.errors.pop(0)
        super().publish(manifest, lease)


def rows(*values: float, full: bool = False, size: int | None = None) -> Update:
    index, size = np.arange(len(values)), len(values) if size is None else size
    tables = {name: Rows(index, np.array(values, np.float32)[:, None], size) for name in ("item/row", "trainer/x")}
    return Update(full, tables, {})


class Desk:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retry, "RETRY_S", 0.001)
        self.store, self.metrics, self.health = Store(), TrainerMetrics(), Health("trainer")
        self.stopping = threading.Event()
        standing = Standing()
        self.draft, self.lineage = Draft(standing.state, standing.unsaved), Lineage(standing)
        lease = hold(self.store)
        pointer = Pointer(self.store, lease, 0.0, metrics=self.metrics, clock=lambda: 0.0)
        again = Retry(self.stopping, metrics=self.metrics, health=self.health)
        self.releaser = Releaser(
            self.store, lease, ORIGIN, self.draft, self.lineage, pointer, again, logarithms=frozenset()
        )
        self.learned = 0
        self.learn(rows(1, 2, full=True))
        self.releaser.release("snapshot", {}, None, checkpoint=True)

    def learn(self, update: Update) -> None:
        batch = BatchRecord(ranges=(("events", 0, self.learned, self.learned + 1),))
        self.learned += 1
        self.draft.add(Submission(update, (batch,), {}, self.learned, {}))
        self.lineage.add([batch])

    @property
    def failures(self) -> float | None:
        return self.metrics.registry.get_sample_value("tidemill_publish_failures_total")


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


def test_a_delta_has_what_has_changed_and_the_batches(desk: Desk) -> None:
    desk.learn(rows(5, size=2))
    release = desk.releaser.release("delta", {"figure": 1.5}, None, checkpoint=True)
    made = release.manifest
    assert (made.version, made.parent, made.kind, made.metrics) == (2, 1, "delta", {"figure": 1.5})
    assert [batch.ranges[0][2] for batch in made.batches] == [1]
    assert release.bytes == sum(ref.bytes for ref in made.blobs.values())
    assert_same(load(desk.store, 2).snapshot(), desk.draft.state.snapshot())
    assert (desk.store.live(), desk.lineage.batches) == (2, [])


def test_without_a_checkpoint_the_trainers_own_state_waits_for_one(desk: Desk) -> None:
    desk.learn(rows(5, size=2))
    assert "trainer/0" not in desk.releaser.release("delta", {}, None, checkpoint=False).manifest.blobs
    desk.learn(rows(6, 7))
    desk.releaser.release("delta", {}, None, checkpoint=True)
    assert_same(load(desk.store, 3).snapshot(), desk.draft.state.snapshot())


@pytest.mark.parametrize("error", [StoreUnavailable("away"), DamagedManifest("the newest version is no number")])
def test_it_is_tried_again_until_it_is_there(desk: Desk, error: ModelStoreError) -> None:
    desk.learn(rows(5, size=2))
    desk.store.errors = [error] * 4
    assert desk.releaser.release("delta", {}, None, checkpoint=True).manifest.kind == "delta"
    assert desk.failures == 4
    assert desk.health.report()[1]["checks"] == {"redis": "ok"}


def test_what_the_store_has_lost_is_made_good_by_a_snapshot(desk: Desk) -> None:
    desk.learn(rows(5, size=2))
    desk.store.errors = [ParentMissing("gone"), StoreUnavailable("away"), ParentMissing("gone again")]
    made = desk.releaser.release("delta", {}, None, checkpoint=False).manifest
    assert (made.version, made.kind, made.checkpoint) == (2, "snapshot", True)
    assert_same(load(desk.store, 2).snapshot(), desk.draft.state.snapshot())
    assert desk.failures == 3


@pytest.mark.parametrize("error", [StoreUnavailable("away"), ParentMissing("gone")])
def test_stopped_meanwhile_it_gives_up(desk: Desk, error: ModelStoreError) -> None:
    desk.learn(rows(5, size=2))
    desk.store.errors = [error] * 4
    desk.stopping.set()
    with pytest.raises(type(error)):
        desk.releaser.release("delta", {}, None, checkpoint=True)
    assert (desk.store.versions(), len(desk.lineage.batches)) == ([1], 1)


def test_a_lost_lease_is_not_tried_again(desk: Desk) -> None:
    desk.learn(rows(5, size=2))
    hold(desk.store)  # another one
    with pytest.raises(LeaseLost):
        desk.releaser.release("delta", {}, None, checkpoint=True)
    assert not desk.failures


def test_of_what_is_not_finite_nothing_is_written_and_nothing_is_lost(desk: Desk) -> None:
    desk.learn(rows(np.nan, size=2))
    with pytest.raises(InvalidUpdate):
        desk.releaser.release("delta", {}, None, checkpoint=True)
    assert desk.store.versions() == [1]
    desk.learn(rows(5, 6))
    made = desk.releaser.release("delta", {}, None, checkpoint=True).manifest
    assert (made.version, [batch.ranges[0][2] for batch in made.batches]) == (2, [1, 2])
    assert_same(load(desk.store, 2).snapshot(), desk.draft.state.snapshot())
    assert [manifest.version for manifest in manifests(desk.store)] == [1, 2]
    assert isinstance(desk.draft.state, State)
