"""What the next version follows on, and which micro-batches no version has on record yet. Pure."""

from collections import deque
from collections.abc import Iterable

from model_store.version import BatchRecord, Manifest
from service.training.publishing.submission import Standing

REMEMBERED = 1_000  # versions whose batches are kept at hand, should the store lose the newest ones


class Lineage:
    def __init__(self, standing: Standing) -> None:
        self.newest = standing.newest  # the highest version number ever given
        self.parent = standing.parent  # None: there is none
        self.parent_at = standing.parent_at  # when it was made, epoch seconds
        self.batches = list(standing.batches)  # since `parent`
        self.in_doubt = False  # whether the store still has `parent`; `settle` decides it
        self._chained = standing.chained
        self._released: deque[tuple[int, list[BatchRecord]]] = deque(maxlen=REMEMBERED)  # with what each has learned
        if standing.parent is not None and not standing.batches:
            self._released.append((standing.parent, []))

    def add(self, batches: Iterable[BatchRecord]) -> None:
        self.batches += batches

    @property
    def takes_a_delta(self) -> bool:
        """Whether the next version may be a delta on `parent`."""
        return self.parent is not None and self._chained

    def released(self, manifest: Manifest) -> None:
        """The next version is published, with all the batches that waited."""
        self.newest = self.parent = manifest.version
        self.parent_at = manifest.created
        self._released.append((manifest.version, self.batches))
        self.batches = []
        self._chained = True

    def settle(self, left: int | None) -> None:
        """The store's newest version is `left`, after a failover or a restart: the next version builds on it, with the
        batches of all that was lost, so the record of what was learned has no hole."""
        self.in_doubt = False
        if left is None or left not in [version for version, _ in self._released]:
            return  # it has lost everything, or more than is remembered here: the record begins anew
        while self._released[-1][0] > left:
            _, batches = self._released.pop()
            self.batches = [*batches, *self.batches]
            self.parent, self._chained = left, False
