"""A version known to be good, kept to be compared with: its weights beside the learner's present counts.

Only what learning can ruin is the reference's own: what is learned by gradient. Which items may be listed, counts and
the event clock are the learner's, since a return to the reference's weights would not change those either.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from model_store.weights import Update
from service.model.contexts import Contexts
from service.model.formats import upgraded
from service.model.recommender import Recommender

Index = NDArray[np.int64]


class Reference:
    """Moved on by one thread and ranked with by another; `borrowed` keeps them apart."""

    def __init__(self, learning: Recommender) -> None:
        self._learning = learning
        self.traits = learning.traits
        self._lock = threading.Lock()
        self._weights: Recommender | None = None
        self._known = 0  # rows below were there when the reference was made

    def owns(self, name: str) -> bool:
        """Whether a table or tensor is the reference's own."""
        return name in self.traits.learned

    def apply(self, update: Update) -> None:
        """Moves on by what has changed since, or begins with a full update; only what is its own is looked at."""
        own = _part(upgraded(update), self.traits.learned)
        with self._lock:
            if update.full:
                self._weights = Recommender(self._learning.config, self._learning.device)
                self._weights.beside(self._learning)
            assert self._weights is not None, "a reference begins with a full update"
            for channel in self._weights.channels:
                channel.apply(own)
            self._weights.blend.apply(own.tensors)
            self._known = max([rows.size for rows in own.tables.values()], default=self._known)

    @contextmanager
    def borrowed(self) -> "Iterator[Reference | None]":
        """The reference, or None while it is being moved on: nobody waits for a comparison."""
        if self._weights is None or not self._lock.acquire(blocking=False):
            yield None
            return
        try:
            yield self
        finally:
            self._lock.release()

    def knows(self, item: Index) -> NDArray[np.bool_]:
        """[n] whether the reference has learned a row for these items."""
        return item < self._known

    def begin_batch(self) -> None:
        """To be called when counts or the clock have moved."""
        assert self._weights is not None
        self._weights.resize(self._learning.size)
        self._weights.clock = self._learning.clock

    def ranks(self, contexts: Contexts, item: Index) -> Index:
        """[B] how many items it would list before each of these."""
        assert self._weights is not None
        return self._weights.ranks(contexts, item)


def _part(update: Update, names: frozenset[str]) -> Update:
    return Update(
        update.full,
        {name: rows for name, rows in update.tables.items() if name in names},
        {name: tensor for name, tensor in update.tensors.items() if name in names},
    )
