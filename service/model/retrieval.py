"""The k best items of a direction, by inner product over unit rows.

Up to `exact_up_to` items by one product with all of them, whose cost is that of reading them once: 200,000 rows of 64
are 51 MB. Beyond it by an index, a navigable graph (HNSW: Malkov & Yashunin 2018) of the library usearch, that is
changed in place: rows are added, moved and removed, and it is never built again. When the items become more than
`exact_up_to` it is filled a few rows a change, and until it holds all of them they are compared as before.

At 250,000 rows, on one core beside other load: a search takes 1.7 to 2.7 ms a history, comparing all of them 3.7 to
5.6. Filling adds 1,300 rows a second. 5,000 rows that moved far take 3.6 s to move, 5,000 that drifted .03 to .08 s.

The index finds most of the best items, not all, and which ones depends on the order of changes. So only readers use
one. A trainer's lists have to be the same whenever its updates are learned again, so beyond `exact_up_to` its copy of
the model proposes nothing: the ranker then learns from the candidates of other channels, with the network's cosine as
a feature, and readers do not tell it of places among candidates that it has never seen.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.model.row_table import RowTable
from service.model.selection import best_rows

Index = NDArray[np.int64]

# Of the graph. Over 20,000 clustered rows of 64 that had all been moved twice, the 100 best of a direction were found
# to .996 with these, and to .94 with 64 and 128 in place of the last two; .98 after half of them had been removed.
# Links of 32 found no more. A search takes 0.4 to 1.7 ms
LINKS, WIDTH_TO_ADD, WIDTH_TO_SEARCH = 16, 128, 256
# A row that is still this near to where it stands in the graph is not moved: most rows of an update move by less, and
# moving one takes 0.3 ms. The order of what is found is by the rows as they are
NEAR = 0.98
ADDED = 500  # rows a change while the graph is filled: 0.4 s beside what the change itself costs
FOUND = (2, 8)  # how often k items are asked of the graph, since some must not be listed; after that all are compared


class MissingIndex(RuntimeError):
    """There are more items than are compared exactly, and the library of the index is not installed."""


class Retrieval:
    """Over the rows of a table, which its owner writes: it calls `resized` and `written` afterwards."""

    def __init__(self, unit: RowTable, exact_up_to: int, *, indexes: bool) -> None:
        """`unit`: rows [N, D] of length 1, or 0 for a row that has no item. `indexes`: whether there may be an index;
        without one nothing is found beyond `exact_up_to`."""
        self._unit, self._exact_up_to, self.indexes = unit, exact_up_to, indexes
        self._graph: Any = None
        self._filled = 0  # the first so many rows stand in the graph, as far as they have an item
        self._placed = np.zeros((0, *unit.shape), np.float16)  # [N, D] the rows as they stand in the graph
        self._stands = np.zeros(0, np.bool_)  # [N] whether a row stands in the graph

    @property
    def filled(self) -> bool:
        """Whether the graph holds every item."""
        return self._graph is not None and self._filled >= self._unit.size

    @property
    def exact(self) -> bool:
        """Whether every item is compared."""
        return self._unit.size <= self._exact_up_to

    def resized(self) -> None:
        """The table has grown. Raises: MissingIndex."""
        if self.exact or not self.indexes:
            return
        size = self._unit.size
        if len(self._placed) < size:
            more = len(self._unit.data) - len(self._placed)  # by capacity, which doubles
            self._placed = np.concatenate([self._placed, np.zeros((more, *self._unit.shape), np.float16)])
            self._stands = np.concatenate([self._stands, np.zeros(more, np.bool_)])
        if self._graph is None:
            self._graph = _graph(self._unit.shape[0], self._exact_up_to)

    def written(self, rows: Index) -> None:
        """Rows [n], each once, have been written. A row of zeros is removed. Fills the graph a little further."""
        if self._graph is None:
            return
        self._place(rows[rows < self._filled])
        more = min(self._filled + ADDED, self._unit.size)
        self._place(np.arange(self._filled, more, dtype=np.int64))
        self._filled = more

    def _place(self, rows: Index) -> None:
        if not len(rows):
            return
        values = self._unit.data[torch.from_numpy(rows).to(self._unit.data.device)].cpu().numpy()
        there, stands = values.any(1), self._stands[rows]
        agreement = np.einsum("nd,nd->n", values, self._placed[rows].astype(np.float32))
        moved = there & ~(stands & (agreement >= NEAR))
        threads = torch.get_num_threads()
        if len(old := rows[stands & (moved | ~there)]):
            self._graph.remove(old.astype(np.uint64), threads=threads)
            self._stands[old] = False
        if moved.any():
            self._graph.add(rows[moved].astype(np.uint64), values[moved], threads=threads)
            self._placed[rows[moved]], self._stands[rows[moved]] = values[moved], True

    def best(self, directions: Tensor, k: int, shut: NDArray[np.bool_]) -> Index:
        """[B, k] rows of the k largest products with directions [B, D], largest first; of equal ones the lower row
        comes first. -1 where there are fewer. `shut` [N]: rows that are left out."""
        best = np.full((len(directions), k), -1, np.int64)
        if not (self.exact or self.indexes):
            return best
        if self.exact or not self.filled:
            return self._compare_all(directions, k, shut)
        left = np.flatnonzero(directions.any(1).cpu().numpy())
        for factor in FOUND:
            if len(left):
                found = self._search(directions[torch.from_numpy(left).to(directions.device)], k, factor, shut)
                best[left] = found
                left = left[found[:, -1] < 0]
        if len(left):
            shut = shut | ~self._stands[: len(shut)]
            best[left] = self._compare_all(directions[torch.from_numpy(left).to(directions.device)], k, shut)
        return best

    def _compare_all(self, directions: Tensor, k: int, shut: NDArray[np.bool_]) -> Index:
        size = self._unit.size
        products = directions @ self._unit.data[:size].T
        products.index_fill_(1, torch.from_numpy(np.flatnonzero(shut[:size])).to(products.device), -np.inf)
        return best_rows(products, k, least=-np.inf)

    def _search(self, directions: Tensor, k: int, factor: int, shut: NDArray[np.bool_]) -> Index:
        """As `best`, of factor x k items that the graph finds; -1 in the last column where too few may be listed."""
        n, wanted = len(directions), factor * k
        asked = np.ascontiguousarray(np.repeat(directions.cpu().numpy(), 1 if n > 1 else 2, axis=0))  # always a batch
        matches = self._graph.search(asked, wanted, threads=torch.get_num_threads())
        there = np.arange(matches.keys.shape[1]) < np.asarray(matches.counts)[:n, None]
        rows = np.where(there, matches.keys[:n].astype(np.int64), 0)  # [B, factor x k]
        device = self._unit.data.device
        theirs = self._unit.data[torch.from_numpy(rows).to(device)]
        products = torch.einsum("bd,bcd->bc", directions, theirs).cpu().numpy()
        products[~there | shut[rows]] = -np.inf
        order = np.lexsort((rows, -products), axis=1)[:, :k]
        best = np.where(np.take_along_axis(products, order, 1) > -np.inf, np.take_along_axis(rows, order, 1), -1)
        return np.pad(best, ((0, 0), (0, k - best.shape[1])), constant_values=-1)


def _graph(dim: int, exact_up_to: int) -> Any:
    """An empty graph. Raises: MissingIndex."""
    try:
        from usearch.index import Index as Graph
    except ImportError:
        raise MissingIndex(
            f"the network has more than {exact_up_to:,} items, and to search so many it needs the library usearch: "
            "pip install 'tidemill[index]', or raise the network's exact_up_to"
        ) from None
    return Graph(
        ndim=dim,
        metric="ip",
        dtype="f16",  # half the memory, and twice as fast to search; what is found is compared in float32
        connectivity=LINKS,
        expansion_add=WIDTH_TO_ADD,
        expansion_search=WIDTH_TO_SEARCH,
    )
