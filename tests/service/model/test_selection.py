import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.model.row_table import BLOCK
from service.model.selection import best_of, best_rows


@settings(deadline=None, max_examples=150)
@given(
    n=st.integers(1, 5),
    columns=st.integers(1, 20) | st.sampled_from([2 * BLOCK, 16 * BLOCK, 40 * BLOCK]),
    k=st.integers(1, 12),
    kinds=st.integers(1, 30),
    seed=st.integers(0, 1000),
)
def test_the_best_are_those_that_a_stable_sort_puts_first(n: int, columns: int, k: int, kinds: int, seed: int) -> None:
    """However many are equal, and wherever the cut falls among them. `kinds`: so many different scores."""
    scores = np.random.default_rng(seed).integers(0, kinds, (n, columns)).astype(np.float32)
    least = 0.0  # of the kinds, the lowest is not listed
    rows, values = best_of(torch.from_numpy(scores), k, least)
    for b in range(n):
        wanted = [c for c in np.argsort(-scores[b], kind="stable")[:k].tolist() if scores[b, c] > least]
        assert rows[b][rows[b] >= 0].tolist() == wanted
        assert values[b][: len(wanted)].tolist() == scores[b, wanted].tolist()
        assert (rows[b][len(wanted) :] == -1).all()
        assert (values[b][len(wanted) :] == 0).all()


@pytest.mark.parametrize("columns", [60, 512, 100 * BLOCK])
def test_untouched_items_are_listed_from_the_first_row_on(columns: int) -> None:
    rows, _ = best_of(torch.zeros(2, columns), 50, -1.0)
    assert rows.tolist() == [list(range(50))] * 2


def test_fewer_columns_than_asked_for() -> None:
    assert best_rows(torch.tensor([[1.0, 3.0, 2.0]]), 5, -np.inf).tolist() == [[1, 2, 0, -1, -1]]
    assert best_rows(torch.empty(2, 0), 3, -np.inf).tolist() == [[-1] * 3] * 2
