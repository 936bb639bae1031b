"""A version known to be good, kept to be compared with: its weights beside the learner's present counts.

Only what learning can ruin is the reference's own: item rows and the network. Which items may be listed, popularity and
the event clock are the learner's, since a return to the reference's weights would not change those either.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from model_store.weights import Update
from service.model.contexts import Contexts
from service.model.recommender import Recommender

Index = NDArray[np.int64]
_OWN = ("item/row", "network/")


def own(name: str) -> bool:
    """Whether a table or tensor is the reference's own."""
    return name.startswith(_OWN)


class Reference:
    """Moved on by one thread and ranked with by another; `borrowed` keeps them apart."""

    def __init__(self, learning: Recommender) -> None:
        self._learning = learning
        self._lock = threading.Lock()
        self._weights: Recommender | None = None
        self._known = 0  # rows below were there when the reference was made

    def apply(self, update: Update) -> None:
        """Moves on by what has changed since, or begins with a full update; only what is its own is looked at."""
        with self._lock:
            if update.full:
                shape, half_lives = self._learning.network.shape, self._learning.popularity.half_lives.tolist()
                self._weights = Recommender.fresh(shape, half_lives, self._learning.device, keep_rows=False)
                self._weights.items = self._learning.items
                self._weights.popularity.table = self._learning.popularity.table
            assert self._weights is not None, "a reference begins with a full update"
            self._weights.network.apply(update)
            if (rows := update.tables.get("item/row")) is not None:
                self._known = rows.size

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
        self._weights.network.resize(self._learning.size)
        self._weights.clock = self._learning.clock

    def ranks(self, contexts: Contexts, item: Index) -> Index:
        """[B] how many items it would list before each of these."""
        assert self._weights is not None
        return self._weights.ranks(contexts, item)
