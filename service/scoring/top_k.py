"""Ranked lists of item ids, from histories of item ids."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.model.recommender import Recommender

ScoredItems = list[tuple[str, float]]


def best_items(
    recommender: Recommender,
    histories: Sequence[Sequence[str]],
    k: int,
    *,
    exclude: NDArray[np.bool_] | None = None,
    hidden: Sequence[Sequence[str]] | None = None,
) -> list[ScoredItems]:
    """The k best items of each user, best first. `histories`: item ids, latest last; ids that the model does not know
    are ignored. `exclude` [size]: True for rows not to list. `hidden`: for each user, ids not to list."""
    rows, scores = recommender.top_k(
        _rows(recommender, histories),
        k,
        exclude=exclude,
        hide=_rows(recommender, hidden) if hidden and any(hidden) else None,
    )
    ids = recommender.ids
    return [
        [(ids[row], score) for row, score in zip(of_user, scored, strict=True) if row >= 0]
        for of_user, scored in zip(rows.tolist(), scores.tolist(), strict=True)
    ]


def excluded(recommender: Recommender, blocked: set[str]) -> NDArray[np.bool_] | None:
    """[size] True where an item is blocked; None where none is."""
    if not blocked:
        return None
    mask = np.zeros(recommender.size, dtype=bool)
    rows = recommender.rows_of(list(blocked))
    mask[rows[rows >= 0]] = True
    return mask


def _rows(recommender: Recommender, lists: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """[n, longest] rows, right-aligned, -1 for padding and for ids that are not known."""
    longest = max((len(ids) for ids in lists), default=0) or 1
    rows = np.full((len(lists), longest), -1, dtype=np.int64)
    flat = recommender.rows_of([item for ids in lists for item in ids])
    start = 0
    for n, ids in enumerate(lists):
        if ids:
            rows[n, longest - len(ids) :] = flat[start : start + len(ids)]
            start += len(ids)
    return rows
