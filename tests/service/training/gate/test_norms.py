"""The norms of growing weights, and what moved."""

from collections.abc import Sequence

import numpy as np
import pytest

from model_store.weights import Rows, State, Update
from service.training.gate.norms import Norms, NormTracker

ROWS, OUT = "item/row", "network/out_weight"  # what gradients change


def update(rows: Sequence[Sequence[float]], index: Sequence[int], size: int, *, full: bool = False) -> Update:
    return Update(
        full=full,
        tables={ROWS: Rows(np.array(index, np.int64), np.array(rows, np.float32), size)},
        tensors={OUT: np.array([3.0, 4.0], np.float32), "trainer/x": np.array([9.0], np.float32)},
    )


def test_norms_are_kept_at_the_cost_of_what_changes() -> None:
    tracker, state = NormTracker({ROWS, OUT}), State()
    steps = [
        update([[3, 4], [0, 1]], [0, 1], 2, full=True),
        update([[0, 2], [1, 0]], [1, 2], 3),
        update([[6, 8]], [0], 3),
    ]
    norms = []
    for each in steps:
        norms.append(tracker.measure(state, each))
        state.apply(each)
        rows = np.asarray(state.table(ROWS), np.float64)
        assert norms[-1].row_norm == pytest.approx(np.sqrt(np.square(rows).sum(1).mean()))
    assert all(each.dense_norm == 5.0 and each.finite for each in norms)
    assert [each.rows_moved for each in norms] == [0.0, 0.0, 0.0]  # no row is settled yet
    tracker.settle(update([[0, 0], [0, 0]], [0, 1], 2))
    assert tracker.measure(state, update([[-6, -8], [0, 2.1]], [0, 1], 3)).rows_moved == 0.5


def test_weights_that_are_not_numbers_are_noticed_and_forgotten_once_replaced() -> None:
    tracker, state = NormTracker({ROWS, OUT}), State()
    for rows, finite in (([[1, 0]], True), ([[np.nan, 0]], False), ([[0, 2]], True)):
        each = update(rows, [0], 1, full=not state.tables)
        found = tracker.measure(state, each)
        assert found.finite == finite
        state.apply(each)
    assert found.row_norm == 2.0


def test_figures_leave_out_what_is_not_finite() -> None:
    assert Norms(1.0, np.inf, 0.5).figures() == {"row_norm": 1.0, "rows_moved": 0.5}
