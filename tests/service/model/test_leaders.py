"""The largest, kept as rows change, beside a full sort."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.model.leaders import Leaders

K, COLUMNS = 5, 2
# a change: rows that grow by so much in both columns, rows that are emptied, or rows that are new
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("grow"), st.lists(st.integers(0, 63), min_size=1, max_size=40), st.integers(0, 3)),
        st.tuples(st.just("empty"), st.lists(st.integers(0, 63), min_size=1, max_size=6), st.just(0)),
        st.tuples(st.just("new"), st.just([0]), st.integers(1, 30)),
        st.tuples(st.just("look"), st.just([0]), st.just(0)),
    ),
    max_size=12,
)


@given(first=st.integers(0, 60), changes=CHANGES, seed=st.integers(0, 100))
def test_they_are_those_of_a_full_sort(first: int, changes: list[tuple[str, list[int], int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 6, (first, 3)).astype(np.float64)  # few values, so that many are equal
    leaders = Leaders(K, COLUMNS)
    for kind, chosen, amount in changes:
        rows = np.unique(chosen)[np.unique(chosen) < len(values)]
        if kind == "grow" and len(rows):
            values[rows] += rng.integers(0, amount + 1, (len(rows), 3))
            leaders.wrote(rows)
        elif kind == "empty":
            values[rows] = -np.inf
            leaders.fell()
        elif kind == "new":
            values = np.concatenate([values, np.full((amount, 3), -np.inf)])
            leaders.wrote(np.arange(len(values) - amount, len(values)))
        elif kind == "look":
            assert_sorted(leaders, values)
    assert_sorted(leaders, values)


def assert_sorted(leaders: Leaders, values: np.ndarray) -> None:
    for column in range(COLUMNS):
        wanted = np.argsort(-values[:, column], kind="stable")[:K]
        assert leaders.of(values, column).tolist() == wanted.tolist()
