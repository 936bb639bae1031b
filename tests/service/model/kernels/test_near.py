"""What neighbour rows say of a history, worked out by hand in a world of five items.

One user went from a to b, another from a to b and to c: so b came after a twice, c after b once, and c after a at
distance two, which counts half.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.channel import Examples
from service.model.channels.neighbours import Neighbours, NeighboursConfig
from service.model.kernels.near import FEATURES, LEAST_SHARE, largest
from service.model.query import NOT_KNOWN, Query

A, B, C, D, E = range(5)
CONFIG = NeighboursConfig(
    slots=4, reach=3, half_life=1e9, backward=0.5, self_weight=0.2, shrinkage=2.0, history=3, hops=2, first=3, second=2
)
# received: a forward 2 + 1/2; b forward 1 and backward 2; c backward 1 + 1/2. Backward counts half, and 2 are added
OF_A, OF_B, OF_C = 2.5 + 2, (1 + 0.5 * 2) + 2, 0.5 * 1.5 + 2


def world() -> Neighbours:
    channel = Neighbours(CONFIG)
    channel.resize(5)
    history = np.array([[-1, -1, A], [-1, -1, A], [-1, A, B]], np.int32)
    item, n = np.array([B, B, C]), 3
    channel.observe(Examples(item, np.arange(n), np.zeros(n), np.ones(n), history), Examples.none(3))
    return channel


def query_of(history: list[int], shut: set[int] | None = None) -> Query:
    closed = np.zeros(5, np.bool_)
    closed[list(shut or ())] = True
    given_ = np.array([[-1] * (3 - len(history)) + history], np.int64)
    return Query.of(given_, clock=0, shut=closed, now=np.zeros(1), idle=np.full(1, NOT_KNOWN, np.float32))


def features(history: list[int], item: int) -> dict[str, float]:
    x = np.full((1, len(FEATURES)), np.nan, np.float32)
    world().look(query_of(history)).describe(np.array([item], np.int32), np.array([0, 1]), x)
    return dict(zip(FEATURES, x[0].tolist(), strict=True))


def log(share: float) -> float:
    return math.log(share + float(LEAST_SHARE)) / 3


# by one step from [b]: what is in its row, and itself. b's row has a (backward 2) and c (forward 1)
FIRST_OF_B = {A: 0.5 * 2 / OF_B, B: 0.2, C: 1 / OF_B}
# by two steps, from the best two, which are a and c: of equal ones the one that the row has first
SECOND_OF_B = {
    B: FIRST_OF_B[A] * 2 / OF_A + FIRST_OF_B[C] * 0.5 / OF_C,
    C: FIRST_OF_B[A] * 0.5 / OF_A,
    A: FIRST_OF_B[C] * 0.25 / OF_C,
}


@pytest.mark.parametrize(
    ("history", "shut", "candidates"),
    [
        ([], set(), []),
        ([D], set(), [D]),  # nobody came from there or went there
        ([B], set(), [A, C, B]),
        ([B], {A}, [C, B]),  # shut, but the way over it counts
        ([B], {A, B, C}, []),
        ([C], set(), [C, B, A]),  # b came before it, a before that
        ([A, E], set(), [E, B, A]),  # e is the latest, and nothing is known of it but itself; c by the second step
    ],
)
def test_candidates_are_the_nearest_best_first(history: list[int], shut: set[int], candidates: list[int]) -> None:
    found = world().look(query_of(history, shut)).candidates[0]
    assert [row for row in found.tolist() if row >= 0][: len(candidates)] == candidates
    assert not shut & set(found.tolist())


def test_the_second_step_goes_on_from_the_best() -> None:
    """Of [a, e] one step has room for e, b and a alone, and c is found from b."""
    found = world().look(query_of([A, E])).candidates[0]
    assert found.tolist() == [E, B, A, C, -1]


def test_what_is_said_of_what_came_after_the_latest() -> None:
    first, second = sum(FIRST_OF_B.values()), sum(SECOND_OF_B.values())
    assert features([B], C) == pytest.approx(
        {
            "rank": 10 / 11,
            "second_rank": 10 / 11,
            "share": log(FIRST_OF_B[C] / first),
            "second_share": log(SECOND_OF_B[C] / second),
            "latest_forward": log(1 / (1 + 2)),
            "latest_backward": log(0),
            "to_latest_forward": log(0),
            "to_latest_backward": log(1 / (1.5 + 2)),
            "before_forward": log(0),
            "before_backward": log(0),
            "third_both": log(0),
            "known_by": 0.25,
            "known_by_share": 1.0,
            "best_share": FIRST_OF_B[A] / first,
            "latest_repeats": 0.0,
            "latest_repeats_it": 0.0,
        },
        rel=1e-4,
        abs=1e-5,
    )


def test_what_is_said_of_items_before_the_latest() -> None:
    said = features([A, B, E], C)  # e is the latest, b before it, a before that
    assert said["before_forward"] == pytest.approx(log(1 / (1 + 2)), rel=1e-4)
    assert said["before_backward"] == pytest.approx(log(0), rel=1e-4)
    assert said["third_both"] == pytest.approx(log(0.5 / (2.5 + 2)), rel=1e-4)
    assert said["latest_forward"] == pytest.approx(log(0), rel=1e-4)
    assert (said["known_by"], said["known_by_share"]) == pytest.approx((0.5, 2 / 3))


def test_nothing_is_known_of_a_stranger() -> None:
    said = features([B], E)
    assert {name: said[name] for name in ("rank", "second_rank", "known_by", "latest_repeats_it")} == dict.fromkeys(
        ("rank", "second_rank", "known_by", "latest_repeats_it"), 0.0
    )
    assert said["share"] == said["latest_forward"] == pytest.approx(log(0))


def test_an_item_that_repeats_itself_says_so() -> None:
    channel = world()
    again = np.array([[-1, -1, D]], np.int32)
    for _ in range(3):
        one = Examples(np.array([D]), np.zeros(1, np.int64), np.zeros(1), np.ones(1), again)
        channel.observe(one, Examples.none(3))
    x = np.empty((2, len(FEATURES)), np.float32)
    channel.look(query_of([B, D])).describe(np.array([D, C], np.int32), np.array([0, 2]), x)
    of_latest, of_it = FEATURES.index("latest_repeats"), FEATURES.index("latest_repeats_it")
    assert x[:, of_latest].tolist() == pytest.approx([3 / 5, 3 / 5])
    assert x[:, of_it].tolist() == pytest.approx([3 / 5, 0])


def test_features_of_a_pair_depend_on_no_other_pair() -> None:
    look = world().look(query_of([A, B]))
    rows = np.array([C, E, A, D, B], np.int32)
    together = np.empty((5, len(FEATURES)), np.float32)
    look.describe(rows, np.array([0, 5]), together)
    for n, row in enumerate(rows):
        alone = np.empty((1, len(FEATURES)), np.float32)
        look.describe(np.array([row]), np.array([0, 1]), alone)
        assert alone[0].tobytes() == together[n].tobytes(), row


@given(st.lists(st.one_of(st.integers(-2, 5).map(float), st.floats(0, 1e6, width=32)), max_size=30), st.integers(1, 12))
def test_the_largest_above_0_come_first_and_of_equal_ones_the_earlier(values: list[float], k: int) -> None:
    order = np.full(12, -1, np.int32)
    found = largest(np.array([*values, 99], np.float32), len(values), k, order)
    positive = [n for n, value in enumerate(values) if value > 0]
    assert order[:found].tolist() == sorted(positive, key=lambda n: (-values[n], n))[:k]
