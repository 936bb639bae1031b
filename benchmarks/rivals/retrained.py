"""What implicit's models have in common: they are trained on all events at once, and anew every 5% of the stream."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from benchmarks.rivals.rival import Events, Floats, Index, Sizes

EVERY = 0.05  # share of the stream


class Retrained(ABC):
    """A rival that knows nothing until 5% of the stream have passed."""

    def __init__(self, sizes: Sizes, *, latest: int, query: int) -> None:
        """latest: events that are trained on at most; 0: all. query: items of a history that count; 0: all."""
        self._sizes = sizes
        self._latest, self._query = latest, query
        self._user = np.zeros(sizes.events, np.int64)  # [events] of which the first `_n` are there
        self._item = np.zeros(sizes.events, np.int64)
        self._n = 0
        self._trained_at = 0  # events
        self._untrained = np.ones(sizes.items, np.bool_)  # items that were in no event trained on

    def learn(self, events: Events) -> None:
        stop = self._n + len(events.user)
        self._user[self._n : stop], self._item[self._n : stop] = events.user, events.item
        self._n = stop
        if self._n - self._trained_at >= EVERY * self._sizes.events:
            self._trained_at = self._n
            start = max(0, self._n - self._latest) if self._latest else 0
            user, item = self._user[start : self._n], self._item[start : self._n]
            self._untrained[:] = True
            self._untrained[item] = False
            self.train(self._matrix(user, item))

    def scores(self, user: int, history: Index, n_items: int) -> Floats:
        if not self._trained_at:
            return np.zeros(n_items)
        recent = history[-self._query :] if self._query else history
        scores = self.scores_of(self._matrix(np.zeros(len(recent), np.int64), recent, users=1))[:n_items]
        scores[self._untrained[:n_items]] = -np.inf
        return scores

    def _matrix(self, user: Index, item: Index, users: int | None = None) -> Any:
        """[users, items] how often each user had each item, as scipy's csr_matrix."""
        from scipy.sparse import csr_matrix

        shape = (self._sizes.users if users is None else users, self._sizes.items)
        return csr_matrix((np.ones(len(user), np.float32), (user, item)), shape=shape)

    @abstractmethod
    def train(self, matrix: Any) -> None:
        """A new model of how often each user had each item, [users, items]."""

    @abstractmethod
    def scores_of(self, row: Any) -> Floats:
        """[items] a new array. `row` [1, items]: how often the user had each item, by their current history."""
