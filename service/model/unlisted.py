"""Remembers which expired items may not be listed: those that were deleted or not available when they were expired.

Without it, one more click on such an item would make a new item of it, and new items may be listed.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from service.model.row_table import IdTable, RowTable

Index = NDArray[np.int64]

# Beyond so many, those that were expired first are forgotten. With ids of 20 letters this is 150 MB of memory and 30 MB
# of a snapshot; nothing as long as no item was expired
AT_MOST = 1 << 20


class Unlisted:
    """Ids, in rows that have nothing to do with those of the item table. Only trainers keep them."""

    def __init__(self, at_most: int = AT_MOST) -> None:
        self.names = IdTable("trainer/unlisted/id")
        self.since = RowTable("trainer/unlisted/since", (), torch.int64, fill=-1)  # on the event clock; -1: a free row
        self.tables: list[RowTable | IdTable] = [self.names, self.since]
        self._at_most = at_most
        self._free: list[int] = []  # ascending

    def __len__(self) -> int:
        return len(self.names) - len(self._free)

    def add(self, ids: Sequence[str], clock: int) -> None:
        """Remembers ids, none of which is here yet. `clock`: the event clock."""
        if (excess := len(self) + len(ids) - self._at_most) > 0:
            self._forget_oldest(max(excess, self._at_most // 16))
            ids = ids[-self._at_most :]
        reused, self._free = self._free[: len(ids)], self._free[len(ids) :]
        rows = reused + list(range(len(self.names), len(self.names) + len(ids) - len(reused)))
        self.names.add(ids, rows)
        self.since.resize(len(self.names))
        self._set(np.array(rows, np.int64), clock)

    def take(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """[n] which of these ids were here. They are forgotten, since the item table has them again."""
        rows = self.names.rows_of(ids)
        self._give_back(rows[rows >= 0])
        found: NDArray[np.bool_] = rows >= 0
        return found

    def restored(self) -> None:
        """Finds the free rows again. To be called after the tables were loaded."""
        self._free = [row for row, item in enumerate(self.names.ids) if not item]

    def _forget_oldest(self, n: int) -> None:
        since = self.since.array[: len(self.names)]
        used = np.flatnonzero(since >= 0)
        self._give_back(used[np.argsort(since[used], kind="stable")[:n]])

    def _give_back(self, rows: Index) -> None:
        if len(rows):
            self.names.free(rows)
            self._set(rows, -1)
            self._free = sorted(self._free + rows.tolist())

    def _set(self, rows: Index, since: int) -> None:
        self.since.array[rows] = since
        self.since.touch(rows)
