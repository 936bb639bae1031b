"""A batch of histories as flat entries, the form every channel reads."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Lengths of history at which a bucket begins: 0-1, 2, 3-4, 5-8, 9 and more items. Some parameters have one value a
# bucket
BUCKET_STARTS = np.array([0, 2, 3, 5, 9])
BUCKETS = len(BUCKET_STARTS)


@dataclass(frozen=True, slots=True)
class Contexts:
    """B histories of at most L items. Their E entries stand one after the other, the latest item of each history
    first."""

    n: int  # B
    length: int  # L
    rows: NDArray[np.int64]  # [E] item row
    lag: NDArray[np.int64]  # [E] positions back from the latest one, which is 0
    owner: NDArray[np.int64]  # [E] which history, ascending
    offsets: NDArray[np.int64]  # [B + 1] entries of history b: offsets[b] to offsets[b + 1]
    newest: NDArray[np.bool_]  # [E] whether no later entry of this history has the same row
    bucket: NDArray[np.int64]  # [B] by number of items

    @classmethod
    def of(cls, histories: NDArray[np.signedinteger]) -> "Contexts":
        """`histories` [B, L]: item rows, most recent last, -1 for padding (anywhere)."""
        n, length = histories.shape
        latest_first = histories[:, ::-1]
        present = latest_first >= 0  # [B, L]
        repeated = np.zeros((n, length), dtype=np.bool_)
        for d in range(1, length):
            repeated[:, d:] |= latest_first[:, d:] == latest_first[:, :-d]
        owner, lag = np.nonzero(present)
        counts = present.sum(1)
        return cls(
            n=n,
            length=length,
            rows=latest_first[present].astype(np.int64),
            lag=lag,
            owner=owner,
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            newest=~repeated[present],
            bucket=np.searchsorted(BUCKET_STARTS, counts, side="right") - 1,
        )

    def latest(self, places: int) -> "Contexts":
        """The latest `places` places of each history alone. Buckets stay those of whole histories."""
        if places >= self.length:
            return self
        kept = self.lag < places
        owner = self.owner[kept]
        return Contexts(
            n=self.n,
            length=places,
            rows=self.rows[kept],
            lag=self.lag[kept],
            owner=owner,
            offsets=np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=self.n))]),
            newest=self.newest[kept],
            bucket=self.bucket,
        )
