"""Vowpal Wabbit, ordering candidates by how likely each is to be chosen: logistic regression, online.

It scores what it is given and finds no candidates itself; all items of a catalogue would take it a second a list. So it
gets those of two other rivals of this table: the 100 best by item-KNN and the 50 most popular, as of the batch before,
and those two scores as features. Item-KNN alone is in the table beside it; what is above it is Vowpal Wabbit's own.

Each event whose item is a candidate is an example labelled 1, and `negatives` other candidates are examples labelled
-1. Namespaces: c the candidate, h the user's latest item, p the one before, u the user, f the two scores. `pairs` says
which of them are multiplied: "hc" learns a weight for each (latest item, candidate), "uc" one of rank 8 for each (user,
candidate), which is its matrix factorisation.
"""

from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from benchmarks.rivals.item_knn import LAST, ItemKnn
from benchmarks.rivals.popularity import Popularity
from benchmarks.rivals.rival import Entry, Events, Floats, Index, Sizes

NEIGHBOURS, POPULAR = 100, 50
HALF_LIFE = 1_000  # of popularity, in events. This and item-KNN's settings are near the best of their own searches
PAIRS = {"none": "", "hc": "-q hc", "hc fc": "-q hc -q fc", "uc": "--lrq uc8 --lrqdropout"}


class VowpalWabbit:
    def __init__(
        self,
        sizes: Sizes,
        *,
        pairs: Literal["none", "hc", "hc fc", "uc"] = "hc",
        rate: float = 0.5,
        negatives: int = 4,
    ) -> None:
        """rate: of VW's own adaptive gradient descent. Raises: ImportError without vowpalwabbit."""
        from vowpalwabbit import Workspace

        self._knn = ItemKnn(sizes, window=20, half_life=50)
        self._popular = Popularity(sizes, half_life=HALF_LIFE)
        self._top = np.empty(0, np.int64)  # [50] the most popular
        self._known = 0  # items
        self._histories: defaultdict[int, deque[int]] = defaultdict(lambda: deque(maxlen=LAST))
        self._negatives = negatives
        self._random = np.random.default_rng(0)
        self._vw: Any = Workspace(
            f"--loss_function logistic -b 22 -l {rate} {PAIRS[pairs]} --quiet --no_stdin --random_seed 1"
        )

    def learn(self, events: Events) -> None:
        vw = self._vw
        if self._known:
            for user, item in zip(events.user.tolist(), events.item.tolist(), strict=True):
                history = self._histories[user]
                if history and item < self._known:
                    for candidate, line in self._examples(user, np.array(history, np.int64), item):
                        vw.learn(f"{1 if candidate == item else -1} {line}")
                history.append(item)
        self._knn.learn(events)
        self._popular.learn(events)
        self._known = max(self._known, int(events.item.max(initial=-1)) + 1)
        counts = self._popular.scores(0, self._top, self._known)
        self._top = np.argsort(-counts, kind="stable")[:POPULAR]

    def scores(self, user: int, history: Index, n_items: int) -> Floats:
        out = np.full(n_items, -np.inf)
        if self._known:
            near = self._near(history)
            candidates = self._candidates(near)
            lines = self._lines(user, history, candidates, near)
            out[candidates] = [self._vw.predict(line) for line in lines]
        return out

    def _near(self, history: Index) -> Floats:
        return self._knn.scores(0, history, self._known)

    def _candidates(self, near: Floats) -> Index:
        """Distinct rows, 150 at most. `near` [items]: item-KNN's scores."""
        found = np.flatnonzero(near)
        if len(found) > NEIGHBOURS:
            found = found[np.argpartition(-near[found], NEIGHBOURS)[:NEIGHBOURS]]
        return np.union1d(found, self._top)

    def _examples(self, user: int, history: Index, item: int) -> Iterable[tuple[int, str]]:
        """The item and some other candidates, each with its features. None where the item is not a candidate: learned
        too, such events would teach that low scores are good."""
        near = self._near(history)
        candidates = self._candidates(near)
        others = candidates[candidates != item]
        if len(others) in (0, len(candidates)):
            return []
        rows = np.append(others[self._random.integers(len(others), size=self._negatives)], item)
        return zip(rows.tolist(), self._lines(user, history, rows, near), strict=True)

    def _lines(self, user: int, history: Index, rows: Index, near: Floats) -> list[str]:
        """VW's text of each row's features, without a label."""
        latest = int(history[-1])
        before = int(history[-2]) if len(history) > 1 else -1
        knn = np.log(near[rows] + 1e-4).tolist()
        popular = np.log(self._popular.scores(user, history, self._known)[rows] + 1e-2).tolist()
        seen = np.isin(rows, history).tolist()
        shared = f"|h {latest} |p {before} |u {user} |f"
        return [
            f"|c {row} {shared} k:{k:.3f} n:{p:.3f}{' seen' if had else ''}"
            for row, k, p, had in zip(rows.tolist(), knn, popular, seen, strict=True)
        ]


ENTRY = Entry(
    title="Vowpal Wabbit, over candidates",
    make=VowpalWabbit,
    grid={
        "hide_seen": (True, False),
        "pairs": ("hc", "none", "hc fc", "uc"),
        "rate": (0.5, 0.1, 2.0),
        "negatives": (4, 10),
    },
    lists=5_000,
    search_lists=1_000,
    packages=("vowpalwabbit", "numba"),
)
