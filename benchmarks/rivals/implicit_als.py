"""implicit's alternating least squares, retrained every 5% of the stream. Source: Hu, Koren and Volinsky, ICDM 2008.

A user's factors are computed for each list from their current history (`recalculate_user`), so nobody has to wait for
the next training; items do. implicit's other factorisation, BPR, has no such step: on streams of new users it would
know hardly anybody.
"""

from typing import Any

import numpy as np

from benchmarks.rivals.retrained import Retrained
from benchmarks.rivals.rival import Entry, Floats, Sizes


class ImplicitAls(Retrained):
    def __init__(
        self,
        sizes: Sizes,
        *,
        factors: int = 16,
        regularization: float = 10.0,
        alpha: float = 10.0,
        latest: int = 20_000,
        query: int = 5,
    ) -> None:
        """alpha: confidence of an event. Raises: ImportError without implicit."""
        from threadpoolctl import threadpool_limits

        super().__init__(sizes, latest=latest, query=query)
        threadpool_limits(1, "blas")  # beside implicit's own thread; it asks for this itself, in a warning
        self._options: dict[str, Any] = {
            "factors": factors,
            "regularization": regularization,
            "alpha": alpha,
            "iterations": 10,
            "num_threads": 1,
            "random_state": 0,
        }
        self._model: Any = None

    def train(self, matrix: Any) -> None:
        from implicit.cpu.als import AlternatingLeastSquares

        self._model = AlternatingLeastSquares(**self._options)
        present = np.flatnonzero(np.diff(matrix.indptr))  # a user without events would cost as much as any
        self._model.fit(matrix[present], show_progress=False)

    def scores_of(self, row: Any) -> Floats:
        user = self._model.recalculate_user(0, row)
        scores: Floats = self._model.item_factors @ user.reshape(-1)
        return scores


ENTRY = Entry(
    title="implicit, ALS",
    make=ImplicitAls,
    grid={
        "hide_seen": (True, False),
        "query": (5, 20, 1, 0),
        "latest": (20_000, 0, 5_000),
        "factors": (16, 8, 32, 64),
        "regularization": (10.0, 1.0, 100.0, 1_000.0),
        "alpha": (10.0, 1.0, 40.0),
    },
    lists=10_000,
    search_lists=10_000,
    packages=("implicit",),
)
