import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.model.contexts import Contexts
from service.model.query import NOT_KNOWN, Query


def query_of(histories: np.ndarray) -> Query:
    n = len(histories)
    idle = np.full(n, NOT_KNOWN, np.float32)
    return Query.of(histories, clock=0, shut=np.zeros(9, np.bool_), now=np.zeros(n), idle=idle)


def test_the_items_of_a_history_stand_latest_first() -> None:
    query = query_of(np.array([[1, -1, 2], [-1, -1, -1], [-1, 3, 3]]))
    assert query.rows.tolist() == [2, 1, 3, 3]
    assert query.offsets.tolist() == [0, 2, 2, 4]


@given(st.integers(0, 5).flatmap(lambda n: arrays(np.int64, (n, 4), elements=st.integers(-1, 8))))
def test_encoders_and_kernels_read_the_same_entries(histories: np.ndarray) -> None:
    query, contexts = query_of(histories), Contexts.of(histories)
    assert query.rows.tolist() == contexts.rows.tolist()
    assert query.offsets.tolist() == contexts.offsets.tolist()
    assert query.n == contexts.n
