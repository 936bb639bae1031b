"""Means of the measures over ranked events, with their standard errors."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.training.evaluation.measures import CUTOFF


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over events."""

    value: float  # 0 without any
    standard_error: float  # sd / sqrt(n), as if events were independent; NaN with fewer than two


@dataclass(frozen=True, slots=True)
class Quality:
    """How well n events were ranked: the measures at 20. With one target an event, the hit rate is recall."""

    ranked: int  # n
    hit_rate: Mean
    mrr: Mean
    ndcg: Mean

    @classmethod
    def of(cls, ahead: NDArray[np.integer]) -> "Quality":
        """`ahead` [n]: how many items came before each target.

        >>> found = Quality.of(np.array([0, 2, 20, 20]))
        >>> found.ranked, found.hit_rate.value, found.hit_rate.standard_error, found.ndcg.value
        (4, 0.5, 0.25, 0.375)
        """
        places = np.arange(CUTOFF)
        events = np.bincount(np.minimum(ahead, CUTOFF), minlength=CUTOFF + 1)[:CUTOFF]  # [CUTOFF] hits by place
        return cls(
            len(ahead),
            _mean(np.ones(CUTOFF), events, len(ahead)),
            _mean(1 / (places + 1), events, len(ahead)),
            _mean(1 / np.log2(places + 2), events, len(ahead)),
        )


def _mean(gain: NDArray[np.float64], events: NDArray[np.int64], n: int) -> Mean:
    """Of n events; `events` [CUTOFF]: how many have each `gain` [CUTOFF]; the others have none."""
    if n == 0:
        return Mean(0.0, math.nan)
    mean = float(gain @ events) / n
    variance = max(0.0, float(gain**2 @ events) / n - mean**2)
    return Mean(mean, math.sqrt(variance / n) if n > 1 else math.nan)
