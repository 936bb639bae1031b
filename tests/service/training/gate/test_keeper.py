"""The reference has its alias in the store, also where that was away when it was found good."""

from model_store.errors import StoreUnavailable
from model_store.lease import Lease
from model_store.memory_store import MemoryStore
from service.training.gate.keeper import REFERENCE
from tests.service.training.runs import Run, batches


class Unwilling(MemoryStore):
    """Takes no alias of the reference for a while."""

    left = 0

    def move(self, version: int, reason: str, *, alias: str = "champion", lease: Lease | None = None) -> bool:
        if alias == REFERENCE and self.left:
            self.left -= 1
            raise StoreUnavailable("Redis: connection lost")
        return super().move(version, reason, alias=alias, lease=lease)


def test_an_alias_that_was_not_taken_is_set_with_a_later_version() -> None:
    store = Unwilling()
    store.left = 2
    Run(store).go(batches(3))
    assert store.left == 0
    assert store.aliases()[REFERENCE] == 1  # the first, which was found good when it was published
