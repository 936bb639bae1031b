"""Orders each history's candidates by score: the best of them, and how many come before a target. Of equal scores the
lower row comes first.

Shapes: B histories, P pairs.
"""

import numpy as np
from numpy.typing import NDArray

from service.model.kernels import order as kernels
from service.model.query import Pairs

Index = NDArray[np.int64]


def best(pairs: Pairs, scores: NDArray[np.float32], k: int) -> tuple[Index, NDArray[np.float32], Index]:
    """The k best of each history, best first: rows, scores and pairs [B, k]; -1, 0 and -1 where there are fewer."""
    n = len(pairs.offsets) - 1
    rows, found = np.full((n, k), -1, np.int64), np.zeros((n, k), np.float32)
    places = np.full((n, k), -1, np.int64)
    kernels.best(pairs.rows, pairs.offsets, scores, rows, found, places)
    return rows, found, places


def ahead(pairs: Pairs, scores: NDArray[np.float32], target: Index, not_listed: int) -> Index:
    """[B] how many candidates come before each target [B], a row; `not_listed` where it is no candidate, or has -inf as
    its score."""
    found = np.full(len(target), not_listed, np.int64)
    kernels.ahead(pairs.rows, pairs.offsets, scores, target, found)
    return found


def places(pairs: Pairs, target: Index) -> Index:
    """[B] the pair of each target [B]; -1 where it is no candidate."""
    found = np.full(len(target), -1, np.int64)
    kernels.places(pairs.rows, pairs.offsets, target, found)
    return found
