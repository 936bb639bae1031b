"""A map of whole numbers in 12 bytes an entry: for millions of them, where a dict would take a hundred each."""

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]

FEW = 1 << 14  # entries that may always be in the dict


class IntMap:
    """int64 -> int32. Sorted arrays, and a dict with what was put last.

    The dict is merged into the arrays once it has an eighth as many entries, so an entry is moved about eight times.
    """

    def __init__(self, few: int = FEW) -> None:
        """`few`: the dict has so many entries before it is merged, at least."""
        self._few = few
        self._keys: Index = np.empty(0, np.int64)  # ascending
        self._values: NDArray[np.int32] = np.empty(0, np.int32)
        self._latest: dict[int, int] = {}  # these count, not those of the arrays

    def get(self, keys: Index) -> Index:
        """[n] the values of `keys` [n]; 0 where there is none."""
        found = np.zeros(len(keys), np.int64)
        if len(self._keys):
            at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            there = self._keys[at] == keys
            found[there] = self._values[at[there]]
        if latest := self._latest:
            found = np.array(list(map(latest.get, keys.tolist(), found.tolist())), np.int64)
        return found

    def put(self, keys: Index, values: Index) -> None:
        """Sets the values [n] of `keys` [n]; of equal keys the last one counts."""
        self._latest.update(zip(keys.tolist(), values.tolist(), strict=True))
        if len(self._latest) > max(self._few, len(self._keys) // 8):
            self._merge()

    def _merge(self) -> None:
        n = len(self._latest)
        keys = np.fromiter(self._latest.keys(), np.int64, n)
        values = np.fromiter(self._latest.values(), np.int32, n)
        self._latest = {}
        order = np.argsort(keys)
        keys, values = np.concatenate([self._keys, keys[order]]), np.concatenate([self._values, values[order]])
        order = np.argsort(keys, kind="stable")  # of equal keys the later value stands last; two runs are merged fast
        keys, values = keys[order], values[order]
        last = np.append(keys[1:] != keys[:-1], True)
        self._keys, self._values = keys[last], values[last]
