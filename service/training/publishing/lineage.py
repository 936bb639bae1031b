"""The version that the next one follows on, and the micro-batches that no version holds yet. Pure."""

from collections import deque
from collections.abc import Iterable

from model_store.version import BatchRecord, Manifest
from service.training.publishing.submission import Standing

REMEMBERED = 1_000  # versions whose batches are kept in memory, in case the store loses the newest versions


class Lineage:
    """`add` batches, then `released` for the version that holds them."""

    def __init__(self, standing: Standing) -> None:
        self.newest = standing.newest  # the highest version number ever given
        self.parent = standing.parent  # None: there is none
        self.parent_at = standing.parent_at  # when it was made, epoch seconds
        self.batches = list(standing.batches)  # learned since `parent`
        self.in_doubt = False  # the store may have lost `parent`; `settle` decides
        self._chained = standing.chained
        self._released: deque[tuple[int, list[BatchRecord]]] = deque(maxlen=REMEMBERED)  # versions and their batches
        if standing.parent is not None and not standing.batches:
            self._released.append((standing.parent, []))

    def add(self, batches: Iterable[BatchRecord]) -> None:
        self.batches += batches

    @property
    def takes_a_delta(self) -> bool:
        """Whether the next version may be a delta on `parent`."""
        return self.parent is not None and self._chained

    def released(self, manifest: Manifest) -> None:
        """To be called when a version is published, which holds all `batches`."""
        self.newest = self.parent = manifest.version
        self.parent_at = manifest.created
        self._released.append((manifest.version, self.batches))
        self.batches = []
        self._chained = True

    def settle(self, left: int | None) -> None:
        """To be called with the newest version that the store has left after a failover or a restart; None: none.

        The next version follows on `left` and holds the batches of all versions that were lost, so no batch is missing
        from the record.
        """
        self.in_doubt = False
        if left is None or left not in [version for version, _ in self._released]:
            return  # the store has lost more than is remembered here, and the record begins anew
        while self._released[-1][0] > left:
            _, batches = self._released.pop()
            self.batches = [*batches, *self.batches]
            self.parent, self._chained = left, False
