"""The reference: the weights of a version known to be good, which the gate compares the learner's weights with.

Learning can spoil only what is learned by gradient, so the reference has its own copy of that alone. Counts, the event
clock and which items may be listed are the learner's, because going back to the reference's weights would not change
them either.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from model_store.weights import Array, Rows, Update
from service.model import order
from service.model.contexts import Contexts
from service.model.formats import upgraded
from service.model.query import Query
from service.model.recommender import Recommender
from service.model.reranking import NOT_LISTED, Judged

Index = NDArray[np.int64]


class Reference:
    """One thread moves it on (`apply`), another ranks with it; `borrowed` keeps them apart."""

    def __init__(self, learning: Recommender) -> None:
        self._learning = learning
        self.traits = learning.traits
        self._lock = threading.Lock()
        self._weights: Recommender | None = None
        self._clock = 0  # accepted events that the reference has learned from
        self._size = 0  # rows that it has learned
        self._empty: dict[str, Array] = {}  # table -> the row of an item that the reference has not met, [1, ...]
        self._looked_at = 0  # the learner's clock when `_forget_strangers` last looked

    def owns(self, name: str) -> bool:
        """Whether the reference has its own copy of a table or tensor."""
        return name in self.traits.learned or name == "clock"

    def apply(self, update: Update) -> None:
        """Moves on to a later version by what has changed since, or begins with a full update. Only what it `owns` is
        taken over."""
        update = upgraded(update)
        own = _part(update, self.traits.learned)
        with self._lock:
            if update.full:
                self._weights = Recommender(self._learning.config, self._learning.device)
                self._weights.share(self._learning)
            assert self._weights is not None, "a reference begins with a full update"
            self._weights.apply(Update(full=False, tables=own.tables, tensors=own.tensors))
            self._clock = int(np.asarray(update.tensors.get("clock", [self._clock]))[0])
            self._size = max([rows.size for rows in own.tables.values()], default=self._size)
            self._empty |= {name: _empty_row(np.asarray(rows.values)) for name, rows in own.tables.items()}
            self._looked_at = 0

    @contextmanager
    def borrowed(self) -> "Iterator[Reference | None]":
        """The reference, or None before its first update and while it is moved on, so that learning does not wait."""
        if self._weights is None or not self._lock.acquire(blocking=False):
            yield None
            return
        try:
            yield self
        finally:
            self._lock.release()

    def knows(self, item: Index) -> NDArray[np.bool_]:
        """[n] whether the reference has learned these items [n]: their rows were theirs when it learned."""
        known: NDArray[np.bool_] = (item < self._size) & (self._learning.items.since.array[item] < self._clock)
        return known

    def begin_batch(self) -> None:
        """Takes the learner's present items and clock over. To be called before the first `ranks` of a batch."""
        assert self._weights is not None
        self._weights.resize(self._learning.size)
        self._weights.clock, self._weights.now = self._learning.clock, self._learning.now
        self._weights.changed()
        self._forget_strangers(self._weights)

    def _forget_strangers(self, weights: Recommender) -> None:
        """Empties rows that were given to other items since: the reference has not met those items."""
        since = self._learning.items.since.array[: self._size]
        rows = np.flatnonzero(since >= max(self._clock, self._looked_at))
        self._looked_at = self._learning.clock
        if len(rows):
            emptied = {name: Rows(rows, row.repeat(len(rows), axis=0), self._size) for name, row in self._empty.items()}
            for channel in weights.channels:
                channel.apply(Update(full=False, tables=emptied))

    def ranks(self, contexts: Contexts, item: Index) -> Index:
        """[B] how many items the reference would list before each of `item` [B], over the whole catalogue."""
        assert self._weights is not None
        assert self._weights.catalogue is not None
        return self._weights.catalogue.ranks(contexts, item)

    def judge(self, judged: Judged, query: Query, item: Index) -> Index:
        """[B] how many candidates the reference's ranker would list before each of `item` [B]. `judged`: what the
        learner made of the same query. Where gradients change the ranker alone, its pairs and features serve."""
        assert self._weights is not None
        reranking = self._weights.reranking
        assert reranking is not None
        if self.traits.learned > reranking.ranker.learned:
            return reranking.judge(query, item).by_ranker
        described = judged.described
        return order.ahead(described.pairs, reranking.ranker.score(described.x), item, NOT_LISTED)


def _part(update: Update, names: frozenset[str]) -> Update:
    return Update(
        update.full,
        {name: rows for name, rows in update.tables.items() if name in names},
        {name: tensor for name, tensor in update.tensors.items() if name in names},
    )


def _empty_row(values: Array) -> Array:
    """[1, ...] of a table of values [n, ...]."""
    return np.zeros((1, *values.shape[1:]), values.dtype)
