"""Tables that grow by rows, and remember which rows were written since the last drain.

So publishing costs what the written rows cost, however large a table is. Code that writes rows of `array` or `data`
calls `touch` with them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store.changes import Touched
from model_store.weights import Rows

Index = NDArray[np.int64]

BLOCK = 32  # rows; capacities are multiples of it, so that a pass over all rows may take whole blocks


class RowTable:
    """Rows of one shape and type, on one device. `data` is [capacity, ...]; rows from `size` on hold `fill`."""

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        *,
        fill: float = 0,
        device: str = "cpu",
    ) -> None:
        self.name = name
        self.shape = shape
        self.fill = fill
        self.size = 0
        self.data = _filled(torch.empty((BLOCK, *shape), dtype=dtype, device=device), BLOCK, fill)
        self._touched = Touched()

    @property
    def array(self) -> NDArray[Any]:
        """`data` as a numpy array [capacity, ...] over the same memory; only for tables on the CPU."""
        array: NDArray[Any] = self.data.numpy()
        return array

    def resize(self, size: int) -> None:
        """Grows to `size` rows. Capacity doubles, so that growing costs a constant time a row."""
        if size > len(self.data):
            capacity = -(-max(size, 2 * len(self.data)) // BLOCK) * BLOCK
            grown = _filled(self.data, capacity, self.fill)
            grown[: self.size] = self.data[: self.size]
            self.data = grown
        if size > self.size:  # a delta must hold every new row, also one that only holds `fill`
            self._touched.add(np.arange(self.size, size, dtype=np.int64))
            self.size = size

    def touch(self, rows: Index) -> None:
        """Marks rows as written. The caller writes them before the next drain."""
        self._touched.add(rows)

    def put(self, rows: Index, values: Tensor | float) -> None:
        """Writes rows [n]: values [n, ...] of the table's type and on its device, or one value for all."""
        self.data[torch.from_numpy(rows).to(self.data.device)] = values
        self.touch(rows)

    def drain(self) -> Rows:
        """A copy of the rows touched since the last drain."""
        return self._rows(self._touched.take())

    def snapshot(self) -> Rows:
        """A copy of all rows; the next drain is not changed by it."""
        return self._rows(np.arange(self.size, dtype=np.int64))

    def _rows(self, index: Index) -> Rows:
        rows = torch.from_numpy(index).to(self.data.device)
        return Rows(index, self.data.index_select(0, rows).cpu().numpy(), self.size)

    def apply(self, rows: Rows) -> None:
        """Writes rows of another table of this name. They do not count as touched."""
        values = np.asarray(rows.values)
        self.resize(rows.size)
        if len(rows.index):
            index = torch.from_numpy(np.array(rows.index)).to(self.data.device)  # copies: what is read may be read-only
            self.data[index] = torch.from_numpy(np.array(values)).to(self.data)

    def load(self, values: "NDArray[np.generic] | list[str]") -> None:
        """Replaces the whole table; nothing is touched then. Raises: ValueError where the rows have another shape."""
        values = np.asarray(values)
        if values.shape[1:] != self.shape:
            raise ValueError(f"{self.name} has rows of {values.shape[1:]}, the configuration says {self.shape}")
        self.size = 0
        self.resize(len(values))
        self.data[: len(values)] = torch.from_numpy(np.array(values)).to(self.data)
        self.data[len(values) :] = self.fill
        self._touched = Touched()


def _filled(like: Tensor, capacity: int, fill: float) -> Tensor:
    """[capacity, ...] of one value, with rows as in `like`. On the CPU numpy allocates it, which asks for huge pages
    where torch does not: rows are read at random places, and 4 kB pages of a million items' are more than a processor
    remembers the addresses of."""
    shape = (capacity, *like.shape[1:])
    if like.device.type == "cpu":
        return torch.from_numpy(np.full(shape, fill, like.numpy().dtype))
    return like.new_full(shape, fill)


class IdTable:
    """Ids and their rows, both ways. A free row has the id ""."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ids: list[str] = []
        self._row: dict[str, int] = {}
        self._touched = Touched()

    def __len__(self) -> int:
        return len(self.ids)

    def rows_of(self, ids: Iterable[str]) -> Index:
        """[n] rows; -1 where an id is not known."""
        get = self._row.get
        return np.array([get(i, -1) for i in ids], dtype=np.int64)

    def add(self, ids: Sequence[str], rows: Sequence[int]) -> None:
        """Gives ids, none of them known yet, to rows: free ones, or the next after the last."""
        for item, row in zip(ids, rows, strict=True):
            if row == len(self.ids):
                self.ids.append(item)
            else:
                self.ids[row] = item
            self._row[item] = row
        self._touched.add(np.asarray(rows, dtype=np.int64))

    def free(self, rows: Index) -> None:
        """Takes the ids off these rows, all of which have one."""
        for row in rows.tolist():
            del self._row[self.ids[row]]
            self.ids[row] = ""
        self._touched.add(rows)

    def drain(self) -> Rows:
        """The rows touched since the last drain."""
        index = self._touched.take()
        return Rows(index, [self.ids[i] for i in index.tolist()], len(self.ids))

    def snapshot(self) -> Rows:
        return Rows(np.arange(len(self.ids), dtype=np.int64), list(self.ids), len(self.ids))

    def apply(self, rows: Rows) -> None:
        """Writes rows of another table of this name. They do not count as touched."""
        values = list(rows.values)
        self.ids.extend([""] * (rows.size - len(self.ids)))
        index = rows.index.tolist()
        for row in index:  # two passes: an id may have moved from one of these rows to another
            self._row.pop(self.ids[row], None)
        for row, value in zip(index, values, strict=True):
            self.ids[row] = str(value)
            if value:
                self._row[str(value)] = row

    def load(self, ids: "NDArray[np.generic] | list[str]") -> None:
        """Replaces the whole table; nothing is touched then."""
        self.ids = [str(item) for item in ids]
        self._row = {item: row for row, item in enumerate(self.ids) if item}
        self._touched = Touched()
