"""Items and their rows: which item has which row, which may be listed, and which rows are freed when all are in use."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from service.model.config import ItemsConfig
from service.model.row_table import IdTable, RowTable
from service.model.unlisted import Unlisted

Index = NDArray[np.int64]


class ItemTable:
    """Ids <-> rows. No two items ever share a row.

    `add` gives rows to items; `expire` frees the rows of the items unused longest, on the event clock. Before the next
    `add` the caller removes every reference to the expired rows (histories, channels). `unlisted` remembers the expired
    items that may not be listed.
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
        """Rows, in use or free: one past the highest row."""
        return len(self.names)

    @property
    def in_use(self) -> int:
        """Rows that have an item."""
        return len(self.names) - len(self._free)

    def rows_of(self, ids: Sequence[str]) -> Index:
        """[n] rows, -1 for ids that are not known."""
        return self.names.rows_of(ids)

    def add(self, ids: Sequence[str], clock: int) -> Index:
        """[n] rows for new ids: free rows first, the lowest first, then rows beyond the last.

        They may be listed, except those that `unlisted` remembers.
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
        shut = self.unlisted.take(ids)  # all False where they are not remembered
        self.set_listable(index, (~shut).astype(np.uint8))
        self.use(index, clock)
        return index

    def use(self, rows: Index, clock: int) -> None:
        """Notes that these rows were used at `clock`, on the event clock."""
        self.last_used.array[rows] = clock
        self.last_used.touch(rows)

    def deleted(self, rows: Index) -> None:
        """The items of these rows were deleted: unless used again, they are the first to be expired."""
        if self._remember_unlisted:
            self.use(rows, 0)

    def set_listable(self, rows: Index, listable: NDArray[np.uint8]) -> None:
        """`listable` [n]: 1 where the item of the row may be listed, else 0."""
        self.listable.array[rows] = listable
        self.listable.touch(rows)

    def expire(self, n: int, keep: Index, clock: int) -> Index:
        """Frees the rows of the n items unused longest, except the rows `keep`. Among equals the lower row goes first.

        Returns the freed rows, ascending; fewer than n where there are not so many.
        """
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
        """Finds the free rows again. To be called after the tables were loaded."""
        self._free = [row for row, item in enumerate(self.names.ids) if not item]
        self.since.resize(self.size)  # where an earlier release wrote no such table: zeros
        self.unlisted.restored()
