"""River's matrix factorisations, `river.reco.BiasedMF` and `FunkMF`, learning event by event as they are meant to.

They predict a rating. Of clicks there is none, and in a stream of ratings too the question is what is chosen. The best
use we found is a 1 for each event and, after it, a 0 for the same user and each of `negatives` items drawn evenly from
those known. `negatives` = 0 is their plain use: the ratings as they are, or 1 where the event has no value.

A list is a call of `predict_one` for every item, as in River's own `rank`.
"""

from typing import Any, Literal

import numpy as np

from benchmarks.rivals.rival import Entry, Events, Floats, Index, Sizes


class RiverFactors:
    def __init__(
        self,
        sizes: Sizes,
        *,
        model: Literal["biased", "funk"] = "biased",
        factors: int = 10,
        rate: float = 0.01,
        negatives: int = 5,
        l2: float = 0.0,
    ) -> None:
        """rate: of plain gradient descent. l2: of every weight. Raises: ImportError without River."""
        from river import optim, reco

        options: dict[str, Any] = {"n_factors": factors, "seed": 0}
        if model == "biased":
            options |= {"bias_optimizer": optim.SGD(rate), "latent_optimizer": optim.SGD(rate)}
            self._model: Any = reco.BiasedMF(**options, l2_bias=l2, l2_latent=l2)
        else:
            self._model = reco.FunkMF(**options, optimizer=optim.SGD(rate), l2=l2)
        self._negatives = negatives
        self._random = np.random.default_rng(0)
        self._known = 0  # items

    def learn(self, events: Events) -> None:
        learn_one, negatives = self._model.learn_one, self._negatives
        self._known = max(self._known, int(events.item.max(initial=-1)) + 1)
        drawn = self._random.integers(self._known, size=(len(events.item), negatives)).tolist()
        columns = (events.user.tolist(), events.item.tolist(), events.value.tolist(), drawn)
        for user, item, value, others in zip(*columns, strict=True):
            rating = value if negatives == 0 and value == value else 1.0  # NaN is not itself
            learn_one(user, item, rating)
            for other in others:
                if other != item:
                    learn_one(user, other, 0.0)

    def scores(self, user: int, history: Index, n_items: int) -> Floats:
        predict_one = self._model.predict_one
        return np.fromiter((predict_one(user, item) for item in range(n_items)), np.float64, n_items)


ENTRY = Entry(
    title="River, matrix factorisation",
    make=RiverFactors,
    grid={
        "hide_seen": (True, False),
        "negatives": (5, 0, 2),
        "model": ("biased", "funk"),
        "rate": (0.01, 0.05, 0.003),
        "factors": (10, 32),
        "l2": (0.0, 0.01),
    },
    lists=2_000,
    search_lists=500,
    packages=("river",),
)
