import math
from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.events import DEFAULT_EVENT_WEIGHTS, Interaction
from service.model.history import LATEST, LEAST_LIKED, NO_KEY, HistoryRule, accept, key_of, keys_of

values = st.floats(allow_nan=False, allow_infinity=False) | st.none()
scales = st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)).map(sorted).filter(lambda ends: ends[1] - ends[0] > 1e-3)


def rating(value: float | None) -> Interaction:
    return Interaction(user_id="u", item_id="i", type="rating", ts=0, value=value)


@pytest.mark.parametrize(
    ("value", "weight"),
    [
        (1, -1.5),
        (2, -1.5),
        (1 + 4 / 3, -1.5),  # the lowest third of 1 to 5, its upper bound included
        (-7, -1.5),
        (math.nextafter(1 + 4 / 3, 5), 3 * LEAST_LIKED),
        (3, 0.75),
        (4, 1.875),
        (5, 3.0),
        (50, 3.0),
        (None, 3.0),
    ],
)
def test_a_rating_weighs_what_its_value_says(value: float | None, weight: float) -> None:
    rule = HistoryRule(20, {"view": 1.0, "rating": 3.0, "dislike": -1.5}, (1.0, 5.0))
    assert rule.weight(rating(value)) == pytest.approx(weight)
    column = np.array([math.nan if value is None else value])
    assert rule.weights(np.array([1], np.int16), column).tolist() == [rule.weight(rating(value))]
    assert rule.weight(rating(value).model_copy(update={"type": "view"})) == 1.0
    unscaled = HistoryRule(20, rule.event_weights)
    assert unscaled.weight(rating(value)) == unscaled.weights(np.array([1], np.int16), column)[0] == 3.0


def test_a_low_rating_is_a_dislike_also_where_none_is_configured() -> None:
    assert HistoryRule(20, {"rating": 1.0}, (0, 9)).weight(rating(2)) == DEFAULT_EVENT_WEIGHTS["dislike"]
    assert HistoryRule(20, {"view": 1.0}, (0, 9)).weights(np.array([0], np.int16), np.array([2.0])).tolist() == [1.0]


@given(st.lists(st.tuples(st.sampled_from(list(DEFAULT_EVENT_WEIGHTS)), values)), scales)
def test_columns_weigh_what_events_do_and_more_is_never_less(
    events: list[tuple[str, float | None]], scale: list[float]
) -> None:
    rule = HistoryRule(20, DEFAULT_EVENT_WEIGHTS, (scale[0], scale[1]))
    types = np.array([list(DEFAULT_EVENT_WEIGHTS).index(kind) for kind, _ in events], np.int16)
    column = np.array([math.nan if value is None else value for _, value in events], np.float64)
    weights = rule.weights(types, column).tolist()
    assert weights == [rule.weight(rating(value).model_copy(update={"type": kind})) for kind, value in events]
    rated = sorted((v, w) for (kind, v), w in zip(events, weights, strict=True) if kind == "rating" and v is not None)
    assert [weight for _, weight in rated] == sorted(weight for _, weight in rated)
    assert all(np.float32(abs(weight)) >= LEAST_LIKED / 2 for _, weight in rated)


def test_a_type_that_is_not_accepted_weighs_nothing_and_has_no_number() -> None:
    rule = HistoryRule(20, {"view": 1.0}, rating_scale=(1, 5))
    assert (rule.weight(rating(None)), rule.weight(rating(5.0))) == (0.0, 0.0)
    with pytest.raises(IndexError):
        rule.weights(np.array([1], np.int16), np.array([math.nan]))


@given(st.binary(min_size=8, max_size=8) | st.just(bytes(8)))
def test_both_sides_make_the_same_key_of_a_digest(digest: bytes) -> None:
    assert keys_of(np.frombuffer(digest, "<i8")).tolist() == [key_of(digest)]
    assert key_of(digest) != NO_KEY


@given(st.lists(st.integers(0, 3 * LATEST), max_size=4 * LATEST))
def test_an_event_is_accepted_unless_its_key_is_among_the_latest(keys: list[int]) -> None:
    latest, accepted = array("q"), list[int]()
    for key in keys:
        new = key == NO_KEY or key not in accepted[-LATEST:]
        assert accept(latest, key) == new
        accepted += [key] * new
        assert latest.tolist() == accepted[-LATEST:]
