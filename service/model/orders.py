"""Simple orders of candidates, which need not learn: each channel by itself, and fixed blends of channels.

No fixed blend is best on every stream: of the first 4,000 events the best is nearly popularity alone on MovieTweetings,
nearly neighbours alone on DIGINETICA, and half of each on MovieLens (docs/decisions/learning.md). So there are several,
and the floor finds out which is best (floor.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.model.channel import Channel
from service.model.features import FeatureSet

BLENDS: tuple[Mapping[str, float], ...] = (
    {"neighbours.share": 0.25, "popularity.count_300": 1.0, "history.latest": -1.0},
    {"neighbours.share": 2.0, "popularity.count_300": 1.0, "history.latest": -1.0},
    {"neighbours.share": 1.0, "popularity.count_300": 1.0},
    {"neighbours.share": 1.0, "history.held": -3.0},  # where nothing is chosen twice
    {"popularity.count_300": 1.0, "history.held": -3.0},
)
"""Feature -> its weight. A blend one of whose features is not there is left out."""
NOTHING = np.float32(-3.0)  # a channel's leading feature at or below it: the channel knows nothing of the pair


@dataclass(frozen=True, slots=True)
class SimpleOrder:
    name: str
    weights: tuple[tuple[int, float], ...]  # (column of the features, its weight)
    alone: bool = False  # a channel by itself, which lists only what it knows

    def scores(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """[P] the scores of pairs with features x [P, F], finite."""
        total = np.zeros(len(x), np.float32)
        for column, weight in self.weights:
            total += np.float32(weight) * x[:, column]
        return total

    def known(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """[P] the same, -inf where a channel by itself knows nothing."""
        scores = self.scores(x)
        return np.where(scores > NOTHING, scores, np.float32(-np.inf)) if self.alone else scores


def simple_orders(channels: Sequence[Channel], features: FeatureSet) -> list[SimpleOrder]:
    """The channels alone, in their order, and then the blends."""
    alone = [
        SimpleOrder(each.name, ((features.column(f"{each.name}.{each.feature_names[each.leading]}"), 1.0),), alone=True)
        for each in channels
    ]
    blends = [
        SimpleOrder(f"blend {n}", tuple((features.column(name), weight) for name, weight in blend.items()))
        for n, blend in enumerate(BLENDS, 1)
        if all(name in features.names for name in blend)
    ]
    return alone + blends
