"""Norms of a version's weights, computed at the cost of the rows that change."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from model_store.weights import Rows, State, Update


@dataclass(frozen=True, slots=True)
class Norms:
    """The norms of a version's weights."""

    row_norm: float = 0.0  # root mean square of the item rows' lengths
    dense_norm: float = 0.0  # length of the network's parameters
    rows_moved: float = 0.0  # share of the reference's rows that this version moved by more than half their length
    finite: bool = True

    def figures(self) -> dict[str, float]:
        """As metrics of a manifest; norms that are not finite are left out."""
        found = {"row_norm": self.row_norm, "dense_norm": self.dense_norm, "rows_moved": self.rows_moved}
        return {name: value for name, value in found.items() if math.isfinite(value)}


class NormTracker:
    """Keeps the norms of a growing state. `learned`: the tables and tensors that gradients change."""

    def __init__(self, learned: Collection[str]) -> None:
        self._learned = learned
        self._squares: dict[str, float] = {}  # table -> sum of the squares of all rows
        self._sizes: dict[str, int] = {}  # table -> rows
        # table -> rows below this are settled; the first steps of a new row are long
        self._settled: dict[str, int] = {}

    def settle(self, update: Update) -> None:
        """From now on the rows of `update`'s tables count as settled: they should move little."""
        self._settled |= {name: rows.size for name, rows in update.tables.items() if name in self._learned}

    def measure(self, before: State, update: Update) -> Norms:
        """The norms once `update` is applied to `before`. To be called for each version, in order."""
        if update.full:
            self._squares, self._sizes = {}, {}
        moved = sum(
            self._measure(name, rows, before, update.full)
            for name, rows in sorted(update.tables.items())
            if name in self._learned
        )
        squares, size, settled = (sum(each.values()) for each in (self._squares, self._sizes, self._settled))
        dense = [tensor for name, tensor in update.tensors.items() if name in self._learned]
        dense_squares = sum(float(np.square(tensor.astype(np.float64)).sum()) for tensor in dense)
        return Norms(
            row_norm=math.sqrt(max(squares, 0.0) / size) if size else 0.0,
            dense_norm=math.sqrt(dense_squares),
            rows_moved=moved / settled if settled else 0.0,
            finite=math.isfinite(squares) and math.isfinite(dense_squares),
        )

    def _measure(self, name: str, rows: Rows, before: State, full: bool) -> int:
        """Takes in the changed rows of a table. Returns how many settled ones moved by more than half their length."""
        new = np.asarray(rows.values, dtype=np.float64)  # [n, D]
        squares = np.square(new).sum(1)  # [n]
        self._sizes[name] = rows.size
        if full or name not in before.tables:
            self._squares[name] = float(squares.sum())
            return 0
        if not math.isfinite(self._squares.get(name, math.inf)):
            self._squares[name] = _squares_of(before, name)
        known = rows.index < before.tables[name]
        old = np.asarray(before.table(name))[rows.index[known]].astype(np.float64)
        old_squares = np.square(old).sum(1)
        old_squares[~np.isfinite(old_squares)] = 0.0
        self._squares[name] += float(squares.sum()) - float(old_squares.sum())
        far = np.square(new[known] - old).sum(1) > 0.25 * old_squares
        return int(far[rows.index[known] < self._settled.get(name, 0)].sum())


def _squares_of(state: State, name: str) -> float:
    """The sum of squares of the rows that are finite. The others are replaced by the update, or found in it again."""
    squares = np.square(np.asarray(state.table(name), dtype=np.float64)).sum(1)
    return float(squares[np.isfinite(squares)].sum())
