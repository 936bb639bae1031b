import numpy as np

from benchmarks.rivals.popularity import Popularity
from benchmarks.rivals.rival import Sizes
from tests.benchmarks.worlds import events_of


def test_an_event_counts_half_after_the_half_life_wherever_batches_end() -> None:
    pairs = [(0, 0), (0, 1), (1, 1), (1, 0), (2, 0)]
    for cut in range(len(pairs) + 1):
        rival = Popularity(Sizes(3, 2, 5), half_life=2)
        rival.learn(events_of(pairs[:cut]))
        rival.learn(events_of(pairs[cut:]))
        item_0 = 0.5**2 + 0.5**0.5 + 1  # 4, 1 and 0 events ago
        item_1 = 0.5**1.5 + 0.5  # 3 and 2 events ago
        np.testing.assert_allclose(rival.scores(0, np.array([0]), 2), [item_0, item_1])
