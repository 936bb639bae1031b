"""How long a pin has lasted is asked now and then, not at each version."""

from model_store.lease import Lease
from model_store.memory_store import MemoryStore
from service.metrics import TrainerMetrics
from service.training.publishing.pointer import PIN_ASKED_EVERY_S, Pointer
from tests.service.training.runs import Run, batches


class Counting(MemoryStore):
    asked = 0

    def pinned_since(self) -> float | None:
        self.asked += 1
        return super().pinned_since()


def test_how_long_a_pin_has_lasted_is_not_asked_at_each_version() -> None:
    store, now = Counting(), 1000.0
    lease: Lease = Run(store).go(batches(3)).lease
    store.rollback(1, "by hand")
    metrics = TrainerMetrics()
    pointer = Pointer(store, lease, 50.0, metrics=metrics, clock=lambda: now)
    for version in (2, 3, 4):
        pointer.point_at(version, None)
    assert store.asked == 1
    now += PIN_ASKED_EVERY_S
    pointer.point_at(4, None)
    assert store.asked == 2
    assert store.aliases()["challenger"] == 4
    assert metrics.registry.get_sample_value("tidemill_versions_held_back_total") == 4
