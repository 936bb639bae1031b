"""How good a list was: the next item is ranked among all items, before it is learned from (test, then train)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CUTOFF = 20


@dataclass
class RankSums:
    """Sums over ranked events of the measures at 20: hit rate (recall, as there is one target), MRR and NDCG."""

    n: int = 0
    hits: float = 0.0
    mrr: float = 0.0
    ndcg: float = 0.0

    def add(self, ahead: NDArray[np.int64]) -> None:
        """`ahead` [B]: how many items came before each target, 0 for one that led the list.

        >>> sums = RankSums()
        >>> sums.add(np.array([0, 2, 20]))
        >>> sums.n, sums.hits, round(sums.mrr, 4), sums.ndcg
        (3, 2.0, 1.3333, 1.5)
        """
        within = ahead[ahead < CUTOFF].astype(np.float64)
        self.n += len(ahead)
        self.hits += float(len(within))
        self.mrr += float((1 / (within + 1)).sum())
        self.ndcg += float((1 / np.log2(within + 2)).sum())
