"""The order of candidates, beside a plain sort."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.model import order
from service.model.query import Pairs

NEVER = 1 << 40
# a history's candidates: each row once, with one of few scores
ROWS = st.lists(st.tuples(st.integers(0, 50), st.integers(-2, 2)), max_size=40, unique_by=lambda pair: pair[0])
WORLDS = st.lists(ROWS, max_size=5)


def pairs_of(world: Sequence[Sequence[tuple[int, int]]]) -> tuple[Pairs, np.ndarray]:
    flat = [pair for history in world for pair in history]
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in world])]).astype(np.int64)
    rows = np.array([row for row, _ in flat], np.int32)
    return Pairs(rows, offsets, np.zeros(len(flat), np.uint8)), np.array([score for _, score in flat], np.float32)


def sorted_rows(history: Sequence[tuple[int, int]]) -> list[int]:
    """Best first; of equal scores the lower row comes first."""
    return [row for row, _ in sorted(history, key=lambda pair: (-pair[1], pair[0]))]


@given(WORLDS, st.integers(1, 45))
def test_the_best_are_those_of_a_sort_with_the_lower_row_first_among_equals(
    world: list[list[tuple[int, int]]], k: int
) -> None:
    pairs, scores = pairs_of(world)
    rows, values, places = order.best(pairs, scores, k)
    assert rows.shape == values.shape == places.shape == (len(world), k)
    for b, history in enumerate(world):
        wanted = sorted_rows(history)[:k]
        nothing = [-1] * (k - len(wanted))
        assert rows[b].tolist() == wanted + nothing
        assert values[b].tolist() == [dict(history)[row] for row in wanted] + [0] * len(nothing)
        found = places[b, : len(wanted)]
        assert pairs.rows[found].tolist() == wanted
        assert ((pairs.offsets[b] <= found) & (found < pairs.offsets[b + 1])).all()
        assert places[b, len(wanted) :].tolist() == nothing


@given(WORLDS, st.data())
def test_ahead_of_a_target_are_those_before_it_in_the_sort(
    world: list[list[tuple[int, int]]], data: st.DataObject
) -> None:
    pairs, scores = pairs_of(world)
    target = np.array([data.draw(st.integers(0, 55)) for _ in world], np.int64)
    places, ahead = order.places(pairs, target), order.ahead(pairs, scores, target, NEVER)
    for b, history in enumerate(world):
        wanted = sorted_rows(history)
        if target[b] in wanted:
            assert ahead[b] == wanted.index(int(target[b]))
            assert places[b] == pairs.offsets[b] + [row for row, _ in history].index(int(target[b]))
        else:
            assert ahead[b] == NEVER
            assert places[b] == -1


def test_a_target_of_which_an_order_knows_nothing_is_not_listed() -> None:
    pairs, _ = pairs_of([[(3, 0), (4, 0), (5, 0)]])
    scores = np.array([1.0, -np.inf, -np.inf], np.float32)
    found = [order.ahead(pairs, scores, np.array([target]), NEVER)[0] for target in (3, 4, 5)]
    assert found == [0, NEVER, NEVER]
