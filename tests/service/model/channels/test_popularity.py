import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.model.channel import Examples
from service.model.channels.popularity import FLOOR, Popularity, PopularityConfig


def examples(rows: np.ndarray, times: np.ndarray, weights: np.ndarray) -> Examples:
    return Examples(rows, times, times.astype(np.float64), weights, history=np.full((len(rows), 1), -1, np.int32))


@given(
    events=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40), st.floats(0.1, 3)), max_size=60),
    batch=st.integers(1, 20),
    start=st.sampled_from([0, 10**9]),
)
def test_forward_decay_is_decay(events: list[tuple[int, int, float]], batch: int, start: int) -> None:
    half_lives = (3.0, 50.0)
    popularity = Popularity(PopularityConfig(half_lives=half_lives))
    popularity.resize(6)
    ordered = sorted(events, key=lambda e: e[1])
    for i in range(0, len(ordered), batch):
        rows, times, weights = (np.array(c) for c in zip(*ordered[i : i + batch], strict=True))
        popularity.observe(examples(rows, times + start, weights.astype(np.float64)), Examples.none(1))
    now = start + 50
    for item in range(6):
        for k, half_life in enumerate(half_lives):
            naive = sum(w * 0.5 ** ((now - start - t) / half_life) for i, t, w in ordered if i == item)
            log = float(popularity.log_counts(now)[item, k])
            if naive:
                assert abs(log - math.log(naive)) < 1e-4 if start else abs(log - math.log(naive)) < 1e-9
            else:
                assert log == -math.inf
            assert math.isclose(
                float(popularity.features(now)[item, k]), math.log(max(naive, FLOOR)), rel_tol=1e-4, abs_tol=1e-4
            )


def test_only_the_rows_of_events_are_touched() -> None:
    popularity = Popularity(PopularityConfig(half_lives=(10.0,)))
    popularity.resize(1000)
    popularity.table.drain()
    popularity.observe(examples(np.array([3, 7, 3]), np.array([0, 1, 2]), np.ones(3)), Examples.none(1))
    assert popularity.table.drain().index.tolist() == [3, 7]


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1e9)), min_size=1, max_size=40), st.integers(1, 7))
def test_events_of_an_item_are_how_many_the_first_and_the_last(events: list[tuple[int, float]], batch: int) -> None:
    """[n] how many, the event clock of the first, the time of the last; wherever batches are cut."""
    popularity = Popularity(PopularityConfig(half_lives=(10.0,), events=True))
    popularity.resize(6)
    clock = np.arange(3, 3 + len(events))
    for i in range(0, len(events), batch):
        part = slice(i, i + batch)
        rows, ts = (np.array(column) for column in zip(*events[part], strict=True))
        history = np.full((len(rows), 1), -1, np.int32)
        popularity.observe(Examples(rows, clock[part], ts, np.ones(len(rows)), history), Examples.none(1))
    for item in range(6):
        mine = [(int(at), ts) for at, (row, ts) in zip(clock, events, strict=True) if row == item]
        wanted = [len(mine), mine[0][0], mine[-1][1]] if mine else [0, 0, 0]
        assert popularity.events.array[item].tolist() == wanted
    popularity.forget(np.array([2, 4]))
    assert not popularity.events.array[[2, 4]].any()


def test_what_is_disliked_is_no_event() -> None:
    popularity = Popularity(PopularityConfig(half_lives=(10.0,), events=True))
    popularity.resize(4)
    one = examples(np.array([3]), np.array([0]), np.ones(1))
    popularity.observe(Examples.none(1), one)
    assert not popularity.events.array.any()
    assert np.isneginf(popularity.table.array[:4]).all()
