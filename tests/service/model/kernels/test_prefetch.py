"""A hint for the processor: it asks for memory and changes nothing, whatever the index."""

from typing import Any

import numpy as np
import pytest

from service.model.kernels.compiled import kernel
from service.model.kernels.prefetch import prefetch


@kernel
def total_of(table: Any, rows: Any, after: int) -> float:
    for row in rows:
        prefetch(table, row)
    total = 0.0
    for row in rows:
        total += table[row % after, 0]
    return float(total)


@pytest.mark.parametrize("index", [np.int32, np.int64, np.uint8])
@pytest.mark.parametrize("value", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize("rows", [[0, 3, 9], [], [9, 9, 0]])
def test_a_hint_changes_nothing(index: type, value: type, rows: list[int]) -> None:
    table: Any = np.arange(30).reshape(10, 3).astype(value)
    before = table.copy()
    assert total_of(table, np.array(rows, index), 10) == table[rows, 0].sum()
    np.testing.assert_array_equal(table, before)


def test_an_address_outside_the_table_is_harmless() -> None:
    table = np.ones((4, 2), np.float32)
    assert total_of(table, np.array([10**9, -(10**9)], np.int64), 4) == 2.0


def test_views_are_asked_for_by_their_own_steps() -> None:
    table = np.arange(60.0).reshape(10, 6)[::2, 1:]
    assert total_of(table, np.array([4, 1], np.int64), 5) == table[[4, 1], 0].sum()
