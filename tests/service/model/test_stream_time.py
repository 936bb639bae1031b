import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.stream_time import LATEST, StreamTime

DAY = 86_400.0


def test_before_the_first_event_it_is_nothing() -> None:
    assert StreamTime().now == 0.0


@pytest.mark.parametrize("ahead", [DAY, -DAY, 1e9])
def test_one_event_with_a_wrong_time_moves_nothing(ahead: float) -> None:
    time = StreamTime()
    time.observe(np.full(10, 1_000.0))
    time.observe(np.array([1_000.0 + ahead]))
    assert time.now == 1_000.0


def test_it_follows_the_latest_events() -> None:
    time = StreamTime()
    time.observe(np.arange(1_000.0))
    assert time.now == 999.0 - LATEST // 2


@given(st.lists(st.floats(0, 1e9), max_size=200), st.integers(1, 70), st.integers(0, 200))
def test_it_depends_neither_on_where_batches_are_cut_nor_on_restarts(ts: list[float], size: int, at: int) -> None:
    whole, cut = StreamTime(), StreamTime()
    whole.observe(np.array(ts))
    for start in range(0, len(ts), size):
        if start >= at:
            restored = StreamTime()
            restored.restore(cut.state)
            cut = restored
        cut.observe(np.array(ts[start : start + size]))
    assert cut.now == whole.now
    assert cut.state.tobytes() == whole.state.tobytes()
