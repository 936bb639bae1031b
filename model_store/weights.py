"""The content of a version: tables, of which a few rows change at a time, and small tensors, which change whole.

An `Update` is what is stored. A full update (of a snapshot) holds every row of every table; a partial one (of a delta)
holds the rows that changed since its parent. `State` is the sum of a full update and the partial ones after it.

Names are paths. Those under `trainer/` are for trainers only; readers never load them.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model_store.errors import InvalidUpdate

Array = NDArray[np.generic]

TRAINER = "trainer/"

Want = Callable[[str], bool]
"""Whether the table or tensor of this name is wanted."""

# only characters without meaning to a file system, a shell or Redis; no leading dot, so never "." nor ".."
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*", re.ASCII)
MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a table: row `index[k]` holds `values[k]`, and the table has `size` rows.

    `values` is an array [n, ...] or, for a table of ids, a list of n strings. Indices are unique and ascending.
    """

    index: NDArray[np.int64]  # [n]
    values: "Array | list[str]"
    size: int


@dataclass(frozen=True, slots=True)
class Update:
    """Rows of tables and whole tensors. `full`: it replaces the whole state."""

    full: bool
    tables: Mapping[str, Rows] = field(default_factory=dict)
    tensors: Mapping[str, Array] = field(default_factory=dict)


def is_name(name: str) -> bool:
    """Whether a name may stand in an update: a path of ASCII letters, digits, `_`, `-` and `.`, 200 at most."""
    return len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None


def check(update: Update) -> None:
    """Checks that an update is consistent.

    Raises: InvalidUpdate if a name is no path, an index is not int64, ascending and within the size, if there are not
    as many values as indices, or if a full update does not hold every row.
    """
    for name in (*update.tables, *update.tensors):
        if not is_name(name):
            raise InvalidUpdate(f"{name[:MAX_NAME]!r} is no name for a table or tensor")
    if both := update.tables.keys() & update.tensors.keys():
        raise InvalidUpdate(f"{min(both)} is both a table and a tensor")
    for name, rows in update.tables.items():
        index = rows.index
        if index.dtype != np.int64 or index.ndim != 1:
            raise InvalidUpdate(f"{name}: the index is {index.dtype}[{index.ndim}-d], not a vector of int64")
        if isinstance(rows.values, np.ndarray) and rows.values.ndim == 0:
            raise InvalidUpdate(f"{name}: the values have no rows")
        if len(rows.values) != len(index):
            raise InvalidUpdate(f"{name}: {len(rows.values)} values for {len(index)} rows")
        if rows.size < 0:
            raise InvalidUpdate(f"{name}: size {rows.size}")
        if len(index):
            if index[0] < 0 or index[-1] >= rows.size:
                raise InvalidUpdate(f"{name}: rows {index[0]}..{index[-1]} of a table of {rows.size}")
            if not (index[1:] > index[:-1]).all():
                raise InvalidUpdate(f"{name}: the index does not ascend")
        if update.full and len(index) != rows.size:
            raise InvalidUpdate(f"{name}: a full update with {len(index)} of {rows.size} rows")


class State:
    """The sum of a full update and the partial ones after it, bit for bit.

    It is changed in place, so an update costs what it brings, and the arrays returned are views, valid until the next
    `apply`. Not safe between threads.
    """

    def __init__(self) -> None:
        self._tables: dict[str, _Table | _Strings] = {}
        self._tensors: dict[str, Array] = {}

    def apply(self, update: Update) -> None:
        """Applies an update; its values are copied.

        If a table grows, the update must hold all its new rows. Only a full update may shrink a table or change its
        dtype or the shape of its rows. A tensor is replaced whole: its shape may change, its dtype may not.

        Raises: InvalidUpdate, naming the table or tensor; the state is then unchanged.
        """
        check(update)
        if update.full:
            # built beside the old ones and then swapped: memory for both for a moment, but never a mix
            self._tables, self._tensors = (
                {name: _table(rows) for name, rows in update.tables.items()},
                {name: np.array(tensor) for name, tensor in update.tensors.items()},
            )
            return
        for name, rows in update.tables.items():
            self._fits(name, rows)
        for name, tensor in update.tensors.items():
            old = self._tensors.get(name)
            if name in self._tables:
                raise InvalidUpdate(f"{name} is a table, not a tensor")
            if old is not None and old.dtype != tensor.dtype:
                raise InvalidUpdate(f"{name}: {tensor.dtype} where it was {old.dtype}")
        for name, rows in update.tables.items():
            table = self._tables.get(name)
            if table is None:
                self._tables[name] = _table(rows)
            else:
                table.put(rows)
        for name, tensor in update.tensors.items():
            self._tensors[name] = np.array(tensor)

    def snapshot(self, want: Want | None = None) -> Update:
        """The state, or the wanted part, as a full update. Its arrays are views: valid until the next `apply`."""
        wanted = want or (lambda _: True)
        return Update(
            full=True,
            tables={
                name: Rows(np.arange(table.size, dtype=np.int64), table.values(), table.size)
                for name, table in self._tables.items()
                if wanted(name)
            },
            tensors={name: self.tensor(name) for name in self._tensors if wanted(name)},
        )

    @property
    def tables(self) -> dict[str, int]:
        """The name of each table and how many rows it has."""
        return {name: table.size for name, table in self._tables.items()}

    @property
    def tensors(self) -> list[str]:
        """The name of each tensor."""
        return list(self._tensors)

    def table(self, name: str) -> "Array | list[str]":
        """All rows, [size, ...] or `size` strings: a read-only view, valid until the next `apply`. Raises: KeyError."""
        return self._tables[name].values()

    def tensor(self, name: str) -> Array:
        """A tensor, read-only. Raises: KeyError."""
        view = self._tensors[name].view()
        view.flags.writeable = False
        return view

    def _fits(self, name: str, rows: Rows) -> None:
        if name in self._tensors:
            raise InvalidUpdate(f"{name} is a tensor, not a table")
        table = self._tables.get(name)
        size = 0 if table is None else table.size
        if table is not None and (kind := _kind(rows.values)) != table.kind:
            raise InvalidUpdate(f"{name}: rows of {kind} where they were {table.kind}")
        if rows.size < size:
            raise InvalidUpdate(f"{name}: {rows.size} rows where there were {size}; only a full update shrinks a table")
        given = len(rows.index) - int(np.searchsorted(rows.index, size))
        if given != rows.size - size:
            raise InvalidUpdate(
                f"{name}: a gap, {given} of the {rows.size - size} new rows {size}..{rows.size - 1} are given"
            )


def _kind(values: "Array | list[str]") -> str:
    """The dtype and shape of a row, as text; a table keeps it between full updates."""
    return f"{values.dtype}{list(values.shape[1:])}" if isinstance(values, np.ndarray) else "strings"


def _table(rows: Rows) -> "_Table | _Strings":
    """A new table of an update's rows, which are all of the table's."""
    return _Table(rows.values) if isinstance(rows.values, np.ndarray) else _Strings(rows.values)


class _Table:
    """Rows in an array with room to grow: doubling keeps the cost of a new row constant on average."""

    def __init__(self, values: Array) -> None:
        self._rows = np.array(values)  # [capacity, ...]
        self.size = len(values)
        self.kind = _kind(values)

    def put(self, rows: Rows) -> None:
        if rows.size > len(self._rows):
            grown = np.zeros((max(rows.size, 2 * len(self._rows)), *self._rows.shape[1:]), self._rows.dtype)
            grown[: self.size] = self._rows[: self.size]
            self._rows = grown
        self._rows[rows.index] = rows.values
        self.size = rows.size

    def values(self) -> Array:
        view = self._rows[: self.size]
        view.flags.writeable = False
        return view


class _Strings:
    """Rows of a table of ids."""

    kind = "strings"

    def __init__(self, values: list[str]) -> None:
        self._rows = list(values)

    @property
    def size(self) -> int:
        return len(self._rows)

    def put(self, rows: Rows) -> None:
        old = self.size
        for row, value in zip(rows.index.tolist(), rows.values, strict=True):
            if row < old:
                self._rows[row] = value
            else:
                self._rows.append(value)

    def values(self) -> list[str]:
        return self._rows
