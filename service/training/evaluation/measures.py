"""Measures of ranking, from how many items came before each target."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CUTOFF = 20


@dataclass
class RankSums:
    """Sums over ranked events of the measures at 20: hits (hit rate is recall, with one target), MRR and NDCG."""

    n: float = 0.0
    hits: float = 0.0
    mrr: float = 0.0
    ndcg: float = 0.0

    @classmethod
    def of(cls, ahead: NDArray[np.int64]) -> "RankSums":
        """`ahead` [B]: how many items came before each target.

        >>> sums = RankSums.of(np.array([0, 2, 20]))
        >>> sums.n, sums.hits, round(sums.mrr, 4), sums.ndcg
        (3.0, 2.0, 1.3333, 1.5)
        """
        within = ahead[ahead < CUTOFF].astype(np.float64)
        return cls(
            n=float(len(ahead)),
            hits=float(len(within)),
            mrr=float((1 / (within + 1)).sum()),
            ndcg=float((1 / np.log2(within + 2)).sum()),
        )

    def add(self, other: "RankSums", half_life: float = math.inf) -> None:
        """Adds events. Earlier ones count for half after `half_life` further events."""
        fade = 0.5 ** (other.n / half_life)
        self.n = self.n * fade + other.n
        self.hits = self.hits * fade + other.hits
        self.mrr = self.mrr * fade + other.mrr
        self.ndcg = self.ndcg * fade + other.ndcg

    @property
    def hit_rate(self) -> float:
        """The mean over the events; 0 without any, as are the next two."""
        return self.hits / self.n if self.n else 0.0

    @property
    def mean_mrr(self) -> float:
        return self.mrr / self.n if self.n else 0.0

    @property
    def mean_ndcg(self) -> float:
        return self.ndcg / self.n if self.n else 0.0


def ndcg_of(ahead: NDArray[np.int64]) -> NDArray[np.float64]:
    """[B] NDCG at 20 of each event. `ahead` [B]: how many items came before its target."""
    gain: NDArray[np.float64] = np.where(ahead < CUTOFF, 1 / np.log2(np.minimum(ahead, CUTOFF) + 2.0), 0.0)
    return gain


@dataclass
class PairedSums:
    """Our ranking and the reference's of the same events: sums of the difference of their NDCG at 20, of its square,
    and of the reference's NDCG at 20."""

    n: float = 0.0
    difference: float = 0.0
    squared: float = 0.0
    reference_ndcg: float = 0.0

    @classmethod
    def of(cls, ours: NDArray[np.int64], reference: NDArray[np.int64]) -> "PairedSums":
        """`ours` [B], `reference` [B]: how many items came before each target by either ranking."""
        theirs = ndcg_of(reference)
        difference = ndcg_of(ours) - theirs
        return cls(float(len(ours)), float(difference.sum()), float(np.square(difference).sum()), float(theirs.sum()))

    def add(self, other: "PairedSums", half_life: float = math.inf) -> None:
        """Adds events. Earlier ones count for half after `half_life` further events."""
        self._fade(0.5 ** (other.n / half_life))
        self.n += other.n
        self.difference += other.difference
        self.squared += other.squared
        self.reference_ndcg += other.reference_ndcg

    def _fade(self, factor: float) -> None:
        self.n *= factor
        self.difference *= factor
        self.squared *= factor
        self.reference_ndcg *= factor

    @property
    def mean(self) -> float:
        """Our mean NDCG less the reference's; 0 without any events."""
        return self.difference / self.n if self.n else 0.0

    @property
    def reference(self) -> float:
        """The reference's mean NDCG; 0 without any events."""
        return self.reference_ndcg / self.n if self.n else 0.0

    @property
    def standard_error(self) -> float:
        """The standard error of `mean`, as if events were independent."""
        if self.n < 2:
            return math.inf
        variance = max(0.0, self.squared / self.n - self.mean**2)
        return math.sqrt(variance / self.n)
