"""The weights of a version in four numbers, kept at the cost of what changes.

What is measured is named in one place, here: the rows of items, and the parameters that every list depends on.
"""

import math
from dataclasses import dataclass

import numpy as np

from model_store.weights import State, Update

ROWS = "item/row"
DENSE = "network/"


@dataclass(frozen=True, slots=True)
class Norms:
    """The weights of a version in four numbers."""

    row_norm: float = 0.0  # root mean square over item rows of their length
    dense_norm: float = 0.0  # length of the network's parameters
    rows_moved: float = 0.0  # share of the reference's rows that moved by more than half their length at once
    finite: bool = True

    def figures(self) -> dict[str, float]:
        """As a manifest's metrics; what is not finite is left out."""
        found = {"row_norm": self.row_norm, "dense_norm": self.dense_norm, "rows_moved": self.rows_moved}
        return {name: value for name, value in found.items() if math.isfinite(value)}


class NormTracker:
    """Keeps the norms of a growing state at the cost of what changes."""

    def __init__(self) -> None:
        self._row_squares = 0.0
        self.settled = 0  # rows below have been learned for a while; the first steps of a new one are long

    def measure(self, before: State, update: Update) -> Norms:
        """What the weights are like once `update` is applied to `before`, which must be in the order of versions."""
        rows = update.tables.get(ROWS)
        size = 0
        moved = 0
        if not math.isfinite(self._row_squares):
            self._row_squares = _squares_of(before)
        if rows is not None:
            size = rows.size
            new = np.asarray(rows.values, dtype=np.float64)  # [n, D]
            squares = np.square(new).sum(1)  # [n]
            if update.full or ROWS not in before.tables:
                self._row_squares = float(squares.sum())
            else:
                old_size = before.tables[ROWS]
                known = rows.index < old_size
                old = np.asarray(before.table(ROWS))[rows.index[known]].astype(np.float64)
                old_squares = np.square(old).sum(1)
                old_squares[~np.isfinite(old_squares)] = 0.0
                self._row_squares += float(squares.sum()) - float(old_squares.sum())
                far = np.square(new[known] - old).sum(1) > 0.25 * old_squares
                moved = int(far[rows.index[known] < self.settled].sum())
        dense = [tensor for name, tensor in update.tensors.items() if name.startswith(DENSE)]
        dense_squares = sum(float(np.square(tensor.astype(np.float64)).sum()) for tensor in dense)
        return Norms(
            row_norm=math.sqrt(max(self._row_squares, 0.0) / size) if size else 0.0,
            dense_norm=math.sqrt(dense_squares),
            rows_moved=moved / self.settled if self.settled else 0.0,
            finite=math.isfinite(self._row_squares) and math.isfinite(dense_squares),
        )


def _squares_of(state: State) -> float:
    """Of the rows that are finite: the others are about to be replaced, or are met again as not finite."""
    squares = np.square(np.asarray(state.table(ROWS), dtype=np.float64)).sum(1)
    return float(squares[np.isfinite(squares)].sum())
