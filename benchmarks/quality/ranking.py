"""Where a target stands in a list, and what that is worth."""

from dataclasses import dataclass

import numpy as np

from benchmarks.rivals.rival import Floats, Index

CUTOFF = 20
NOWHERE = 1 << 40  # items ahead of a target that is not in the list at all


def ahead_of(scores: Floats, target: int, hidden: Index) -> int:
    """How many items come before the target. `scores` [items]; `hidden`: distinct rows that are not listed.

    Of equal scores the target stands in the middle, the later of two middle places: a rival that gives everything the
    same score gains nothing by it.

    >>> ahead_of(np.array([3.0, 1.0, 1.0, 1.0]), 2, np.array([], np.int64))
    2
    >>> ahead_of(np.array([3.0, 1.0, 1.0, 1.0]), 2, np.array([0, 1]))
    1

    Raises: ValueError if a score is NaN.
    """
    if np.isnan(scores.max()):
        raise ValueError("a score is NaN")
    mine = scores[target]
    if mine == -np.inf or target in hidden:
        return NOWHERE
    left_out = scores[hidden]
    above = np.count_nonzero(scores > mine) - np.count_nonzero(left_out > mine)
    others = np.count_nonzero(scores == mine) - np.count_nonzero(left_out == mine) - 1
    return int(above + (others + 1) // 2)


@dataclass(frozen=True)
class Figure:
    """A mean over the ranked events, and its standard error as if events were independent."""

    mean: float
    error: float | None  # None where it is not known


@dataclass(frozen=True)
class Figures:
    """At 20, with one target an event: the hit rate is the recall."""

    ranked: int
    hit_rate: Figure
    mrr: Figure
    ndcg: Figure

    @classmethod
    def of(cls, ahead: Index) -> "Figures":
        """`ahead` [n]: how many items came before each target.

        >>> found = Figures.of(np.array([0, 1, 20, NOWHERE]))
        >>> found.hit_rate.mean, found.mrr.mean, round(found.hit_rate.error, 3)
        (0.5, 0.375, 0.25)
        """
        listed = ahead < CUTOFF
        place = np.minimum(ahead, CUTOFF)
        return cls(
            ranked=len(ahead),
            hit_rate=_figure(listed.astype(np.float64)),
            mrr=_figure(np.where(listed, 1 / (place + 1.0), 0.0)),
            ndcg=_figure(np.where(listed, 1 / np.log2(place + 2.0), 0.0)),
        )


def _figure(gain: Floats) -> Figure:
    if not len(gain):
        return Figure(0.0, None)
    return Figure(float(gain.mean()), float(gain.std() / np.sqrt(len(gain))))
