"""Ranked lists of item ids, from histories of item ids."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.model.recommender import Recommender
from service.model.reranking import Kept, Lists

ScoredItems = list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Ask:
    """One user's list as it is asked for."""

    history: Sequence[str]  # item ids, latest last; ids that the model does not know are ignored
    last: float  # epoch seconds of the latest of them; NOT_KNOWN where that is not known
    hidden: Sequence[str] = ()  # ids not to list
    kept: Kept | None = None  # candidates of the same model to order again, of a user who has not acted since


def best_items(
    recommender: Recommender,
    asked: Sequence[Ask],
    k: int,
    *,
    exclude: NDArray[np.bool_] | None = None,
    keep: int = 0,
    after: float = 0.0,
) -> tuple[list[ScoredItems], list[Kept | None]]:
    """The k best items of each user, best first, and what is kept of them to be ordered again later: the `keep` best
    candidates, or, where kept ones were ordered again, those and what has joined them. `exclude` [size]: True for rows
    not to list. `after`: as in `Recommender.lists`."""
    ranked: list[ScoredItems] = [[] for _ in asked]
    kept: list[Kept | None] = [None for _ in asked]
    for again in (False, True):
        chosen = [n for n, each in enumerate(asked) if (each.kept is not None) is again]
        if not chosen:
            continue
        some = [asked[n] for n in chosen]
        last = np.array([each.last for each in some], np.float64)
        if again:
            before = [each.kept for each in some if each.kept is not None]
            lists = recommender.lists_again(before, k, last=last, exclude=exclude, after=after)
        else:
            histories = _rows(recommender, [each.history for each in some])
            hidden = [each.hidden for each in some]
            hide = _rows(recommender, hidden) if any(hidden) else None
            lists = recommender.lists(histories, k, last=last, exclude=exclude, hide=hide, keep=keep, after=after)
        for n, scored in zip(chosen, _with_ids(recommender, lists), strict=True):
            ranked[n] = scored
        for n, candidates in zip(chosen, lists.kept, strict=False):
            kept[n] = candidates
    return ranked, kept


def _with_ids(recommender: Recommender, lists: Lists) -> list[ScoredItems]:
    ids, found = recommender.ids, (lists.rows >= 0).sum(1).tolist()
    return [
        list(zip(map(ids.__getitem__, of_user[:n]), scored[:n], strict=True))
        for of_user, scored, n in zip(lists.rows.tolist(), lists.scores.tolist(), found, strict=True)
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
