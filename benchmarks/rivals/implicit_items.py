"""implicit's item-item models (BM25, TF-IDF, cosine), retrained every 5% of the stream.

A list is made of the user's current history: the sum of the neighbours of its items. Items new since the last training
are not listed.
"""

import warnings
from typing import Any, Literal

import numpy as np

from benchmarks.rivals.retrained import Retrained
from benchmarks.rivals.rival import Entry, Floats, Sizes


class ImplicitItems(Retrained):
    def __init__(
        self,
        sizes: Sizes,
        *,
        model: Literal["bm25", "tfidf", "cosine"] = "bm25",
        neighbours: int = 100,
        latest: int = 0,
        query: int = 20,
    ) -> None:
        """neighbours: kept of each item. Raises: ImportError without implicit."""
        super().__init__(sizes, latest=latest, query=query)
        self._which, self._neighbours = model, neighbours
        self._similarity: Any = None  # [items, items], sparse

    def train(self, matrix: Any) -> None:
        from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender

        kinds = {"bm25": BM25Recommender, "tfidf": TFIDFRecommender, "cosine": CosineRecommender}
        model = kinds[self._which](K=self._neighbours, num_threads=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that its own weighting made a matrix of another kind
            model.fit(matrix, show_progress=False)
        self._similarity = model.similarity

    def scores_of(self, row: Any) -> Floats:
        return np.asarray(row.dot(self._similarity).toarray()[0], np.float64)


ENTRY = Entry(
    title="implicit, item-item",
    make=ImplicitItems,
    grid={
        "hide_seen": (True, False),
        "query": (20, 5, 1, 0),
        "model": ("bm25", "tfidf", "cosine"),
        "latest": (0, 20_000, 5_000),
        "neighbours": (100, 20, 500),
    },
    lists=20_000,
    search_lists=4_000,
    packages=("implicit",),
)
