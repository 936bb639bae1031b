"""Which item rows have moved since somebody asked last: noted by the thread that loads versions, taken by another."""

import threading

import numpy as np
from numpy.typing import NDArray

from model_store.weights import Update

Index = NDArray[np.int64]


class MovedRows:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all = True
        self._rows: list[Index] = []

    def note(self, rows: Index | None) -> None:
        """These rows [n] have moved; None: any may have."""
        with self._lock:
            if rows is None:
                self._all, self._rows = True, []
            elif not self._all:
                self._rows.append(rows)

    def take(self) -> Index | None:
        """[n] the rows noted since the last call, each once; None: all of them. At first all."""
        with self._lock:
            everything, rows = self._all, self._rows
            self._all, self._rows = False, []
        if everything:
            return None
        return np.unique(np.concatenate(rows)) if rows else np.empty(0, np.int64)


def moved_by(update: Update) -> NDArray[np.int64]:
    """[n] the rows whose related lists an update may change: those of new items, and those whose neighbours moved."""
    found = [update.tables[name].index for name in ("item/id", "neighbours/mass") if name in update.tables]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
