"""The rows with the largest values of a table whose values only grow: kept as rows change, at the cost of the changes.

Only a row that was written can come among the largest, since all others stay as they are. Where a value falls (an item
was expired) the next call looks at all rows again.
"""

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


class Leaders:
    def __init__(self, k: int, columns: int) -> None:
        """The k largest of each of the first `columns` columns."""
        self._k, self._columns = k, columns
        self._rows: list[Index] | None = None  # of each column, largest first; None: look at all
        self._written: list[Index] = []

    def wrote(self, rows: Index) -> None:
        """These rows were written, and no value has fallen."""
        self._written.append(rows)

    def fell(self) -> None:
        """A value may have fallen."""
        self._rows = None

    def of(self, values: NDArray[np.float64], column: int) -> Index:
        """The rows of the k largest values [N, columns or more] of a column, largest first; of equal ones the lower row
        comes first. Fewer than k where there are not so many rows."""
        if self._rows is None:
            self._rows = [_largest(np.arange(len(values)), values[:, c], self._k) for c in range(self._columns)]
        elif self._written:
            new = np.unique(np.concatenate(self._written))
            self._rows = [
                _largest(np.union1d(rows, new), values[:, c], self._k) for c, rows in enumerate(self._rows)
            ]  # fmt: skip
        self._written = []
        return self._rows[column]


def _largest(rows: Index, values: NDArray[np.float64], k: int) -> Index:
    """The k rows with the largest values [N], largest first. `rows` ascend."""
    mine = values[rows]
    if len(rows) > 4 * k:
        least = np.partition(mine, len(mine) - k)[len(mine) - k]
        above, equal = np.flatnonzero(mine > least), np.flatnonzero(mine == least)
        kept = np.sort(np.concatenate([above, equal[: k - len(above)]]))
        rows, mine = rows[kept], mine[kept]
    return rows[np.argsort(-mine, kind="stable")[:k]]
