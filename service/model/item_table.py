"""Items and their rows: who has which row, which may be listed, and who makes room when the table is full."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from service.model.config import ItemsConfig
from service.model.row_table import IdTable, RowTable
from service.model.unlisted import Unlisted

Index = NDArray[np.int64]


class ItemTable:
    """Ids <-> rows. Without `max_items` it grows without limit; with it, no two items ever share a row.

    A row's life: `add` gives it to an item; `expire` takes it back from those unused longest, on the event clock. The
    caller clears the expired rows everywhere else (histories, replay) before the rows are given out again. That an item
    may not be listed outlives its row.
    """

    def __init__(self, config: ItemsConfig) -> None:
        self._remember_unlisted = config.remember_unlisted
        self.names = IdTable("item/id")
        self.listable = RowTable("item/listable", (), torch.uint8, device="cpu")
        self.last_used = RowTable("trainer/item/last_used", (), torch.int64, fill=-1)  # -1: a free row
        self.since = RowTable("trainer/item/since", (), torch.int64)  # the event clock when its item was given the row
        self.unlisted = Unlisted()
        self._free: list[int] = []  # ascending; rows given back

    @property
    def tables(self) -> list[RowTable | IdTable]:
        return [self.listable, self.last_used, self.since, self.names, *self.unlisted.tables]

    @property
    def size(self) -> int:
        """Rows in use or free: one past the highest row."""
        return len(self.names)

    @property
    def in_use(self) -> int:
        return len(self.names) - len(self._free)

    def rows_of(self, ids: Sequence[str]) -> Index:
        return self.names.rows_of(ids)

    def add(self, ids: Sequence[str], clock: int) -> Index:
        """Rows for new ids: free ones first, lowest first, then fresh ones.

        They can be listed, but for those that could not when they had a row before.
        """
        reused, self._free = self._free[: len(ids)], self._free[len(ids) :]
        rows = reused + list(range(self.size, self.size + len(ids) - len(reused)))
        self.names.add(ids, rows)
        index = np.array(rows, dtype=np.int64)
        self.listable.resize(self.size)
        self.last_used.resize(self.size)
        self.since.resize(self.size)
        self.since.array[index] = clock
        self.since.touch(index)
        shut = self.unlisted.take(ids)  # none, where they are not remembered
        self.set_listable(index, (~shut).astype(np.uint8))
        self.use(index, clock)
        return index

    def use(self, rows: Index, clock: int) -> None:
        self.last_used.array[rows] = clock
        self.last_used.touch(rows)

    def deleted(self, rows: Index) -> None:
        """Until they are used again, the first to be expired."""
        if self._remember_unlisted:
            self.use(rows, 0)

    def set_listable(self, rows: Index, listable: NDArray[np.uint8]) -> None:
        self.listable.array[rows] = listable
        self.listable.touch(rows)

    def expire(self, n: int, keep: Index, clock: int) -> Index:
        """Frees the n items unused longest, none of `keep`; of equals the lower row. Returns their rows, ascending;
        fewer where there are not so many."""
        last = self.last_used.array[: self.size].astype(np.int64)
        last[keep] = -1
        candidates = np.flatnonzero(last >= 0)
        rows = np.sort(candidates[np.argsort(last[candidates], kind="stable")[:n]])
        if self._remember_unlisted:
            self.unlisted.add([self.names.ids[row] for row in rows[self.listable.array[rows] == 0].tolist()], clock)
        self.names.free(rows)
        self.set_listable(rows, np.zeros(len(rows), np.uint8))
        self.use(rows, -1)
        self._free = sorted(self._free + rows.tolist())
        return rows

    def restored(self) -> None:
        """To be called after the tables were loaded: finds the free rows again."""
        self._free = [row for row, item in enumerate(self.names.ids) if not item]
        self.since.resize(self.size)  # of an earlier release's model: as if all had been there from the beginning
        self.unlisted.restored()
