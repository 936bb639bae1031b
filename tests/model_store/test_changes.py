"""Which rows have changed, each once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model_store.changes import Touched


@given(st.lists(st.lists(st.integers(0, 20))))
def test_each_touched_row_is_taken_once_in_order(parts: list[list[int]]) -> None:
    touched = Touched()
    for part in parts:
        touched.add(np.array(part, dtype=np.int64))
    taken = touched.take()
    assert taken.dtype == np.int64
    assert taken.tolist() == sorted({row for part in parts for row in part})
    assert touched.take().tolist() == []
