from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from benchmarks.rivals.item_knn import SLOTS, ItemKnn
from benchmarks.rivals.rival import Sizes
from tests.benchmarks.worlds import events_of

PLAIN: dict[str, Any] = {"window": 2, "recency": 1.0, "backward": 0.0, "shrinkage": 1.0}


def knn(pairs: list[tuple[int, int]], items: int = 4, users: int = 3, **settings: Any) -> ItemKnn:
    rival = ItemKnn(Sizes(users, items, len(pairs)), **(PLAIN | settings))
    rival.learn(events_of(pairs))
    return rival


def scores(rival: ItemKnn, history: list[int], n_items: int = 4) -> list[float]:
    found: list[float] = rival.scores(0, np.array(history), n_items).tolist()
    return found


def test_weights_worked_out_by_hand() -> None:
    rival = knn([(0, 0), (0, 1), (0, 2), (1, 0), (1, 2)])
    # row 0: item 1 one step later (1), item 2 two steps later (1/2) and one step later (1): total 2.5
    # row 1: item 2 one step later (1): total 1
    assert scores(rival, [0]) == pytest.approx([0, 1 / 3.5, 1.5 / 3.5, 0])
    assert scores(rival, [1]) == pytest.approx([0, 0, 1 / 2, 0])
    # the latest counts fully, the one before half
    assert scores(rival, [0, 1]) == pytest.approx([0, 0.5 / 3.5, 0.5 * 1.5 / 3.5 + 1 / 2, 0])


def test_backward_neighbours_count_by_their_share() -> None:
    rival = knn([(0, 0), (0, 1)], backward=0.5)
    assert scores(rival, [1]) == pytest.approx([0.5 / 1.5, 0, 0, 0])


def test_an_item_that_follows_itself_is_its_own_neighbour() -> None:
    rival = knn([(0, 1), (0, 1), (0, 2)])
    # row 1: itself (1), item 2 one and two steps later (1 + 1/2): total 2.5
    assert scores(rival, [1]) == pytest.approx([0, 1 / 3.5, 1.5 / 3.5, 0])


def test_the_window_ends_the_links() -> None:
    pairs = [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert scores(knn(pairs, window=3), [0])[3] > 0
    assert scores(knn(pairs, window=2), [0])[3] == 0


def test_a_row_fades_by_the_weight_that_comes_in() -> None:
    rival = knn([(0, 0), (0, 1), (1, 0), (1, 2)], half_life=1.0)
    # item 1's weight of 1 is halved as item 2's comes: total 1.5
    assert scores(rival, [0]) == pytest.approx([0, 0.5 / 2.5, 1 / 2.5, 0])


def test_popular_items_are_held_back() -> None:
    rival = knn([(0, 0), (0, 1), (1, 1), (2, 1)], popularity_power=0.5)
    assert scores(rival, [0])[1] == pytest.approx(1 / 2 / (3 + 1) ** 0.5)


def test_reminders_add_a_share_of_the_best_score() -> None:
    rival = knn([(0, 0), (0, 1)], reminder=0.5)
    best = 1 / 2
    # by hand: row 0 gives item 1 its 1/2; item 0, the latest, gains half of it, item 3 half of that
    assert scores(rival, [3, 0]) == pytest.approx([best / 2, best, 0, best / 4])


def test_a_full_row_lets_the_lightest_go() -> None:
    pairs = [(0, 0)]
    for item in range(1, SLOTS + 1):
        pairs += [(0, item), (0, 0)]
    items = SLOTS + 3
    rival = knn(pairs, items=items, window=1)  # row 0 is full: a weight of 1 each
    rival.learn(events_of([(1, 0), (1, 5), (1, 0), (1, SLOTS + 1)]))
    row = scores(rival, [0], items)
    assert row[SLOTS + 1] > 0
    assert row[5] == pytest.approx(2 * row[SLOTS + 1])
    assert sum(value > 0 for value in row) == SLOTS


def test_items_not_known_yet_have_no_score() -> None:
    rival = knn([(0, 0), (0, 1), (0, 2)])
    assert len(scores(rival, [0], n_items=2)) == 2
