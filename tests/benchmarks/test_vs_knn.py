import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from benchmarks.rivals.rival import Sizes
from benchmarks.rivals.vs_knn import VsKnn
from tests.benchmarks.worlds import events_of

PLAIN: dict[str, Any] = {"neighbours": 10, "recency": 1.0, "decay": 1.0, "look_back": 0.5, "idf": 0.0}
ME = 3


def knn(pairs: list[tuple[int, int]], **settings: Any) -> VsKnn:
    rival = VsKnn(Sizes(4, 5, len(pairs)), **(PLAIN | settings))
    rival.learn(events_of(pairs))
    return rival


def scores(rival: VsKnn, history: list[int]) -> list[float]:
    found: list[float] = rival.scores(ME, np.array(history), 5).tolist()
    return found


def test_distance_from_the_shared_item_worked_out_by_hand() -> None:
    rival = knn([(0, 0), (0, 1), (0, 2), (0, 3)])
    # shared: item 1, itself at distance 0; item 2 one after, item 3 two after, item 0 one before
    assert scores(rival, [1]) == pytest.approx([0.5, 1, 1, 1 / 2, 0])


def test_a_session_is_as_alike_as_the_items_it_shares_are_late() -> None:
    rival = knn([(0, 0), (0, 2), (1, 1), (1, 3)])
    found = scores(rival, [0, 1])
    assert found[3] == pytest.approx(1)  # by the latest item
    assert found[2] == pytest.approx(1 / 2)  # by the one before
    both = scores(knn([(0, 0), (0, 1), (0, 2)]), [0, 1])
    assert both[2] == pytest.approx(1.5)  # one after the latest shared item


def test_only_the_most_alike_sessions_count() -> None:
    pairs = [(0, 0), (0, 2), (1, 1), (1, 3)]
    assert scores(knn(pairs, neighbours=1), [0, 1])[2] == 0


def test_of_equally_alike_sessions_the_latest_counts() -> None:
    found = scores(knn([(0, 0), (0, 2), (1, 0), (1, 3)], neighbours=1), [0])
    assert found[3] == pytest.approx(1)
    assert found[2] == 0


def test_an_item_shared_twice_is_shared_once() -> None:
    once, twice = knn([(0, 0), (0, 2)]), knn([(0, 0), (0, 0), (0, 2)])
    assert scores(once, [0])[2] == scores(twice, [0])[2] == scores(twice, [0, 0])[2] == pytest.approx(1)


def test_nobody_is_their_own_neighbour() -> None:
    assert scores(knn([(ME, 0), (ME, 1)]), [0]) == [0, 0, 0, 0, 0]


def test_rare_items_gain_more() -> None:
    found = scores(knn([(0, 0), (0, 1), (1, 1), (2, 2)], idf=1.0), [0])
    assert found[0] == pytest.approx(1 - math.log(1) / math.log(4))
    assert found[1] == pytest.approx(1 - math.log(2) / math.log(4))


def test_nothing_is_carried_over_to_the_next_list() -> None:
    rival = knn([(0, 0), (0, 1), (1, 1), (1, 2)])
    first = scores(rival, [0])
    scores(rival, [1])
    assert scores(rival, [0]) == first
