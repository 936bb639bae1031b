import math

import numpy as np
import pytest

from benchmarks.quality.ranking import NOWHERE, Figures, ahead_of

NOTHING = np.empty(0, np.int64)


def test_of_equal_scores_the_target_is_in_the_middle() -> None:
    scores = np.array([2.0, 1.0, 1.0, 1.0, 0.0])
    assert [ahead_of(scores, target, NOTHING) for target in range(5)] == [0, 2, 2, 2, 4]


def test_of_two_middle_places_it_takes_the_later() -> None:
    assert ahead_of(np.zeros(2), 0, NOTHING) == 1
    assert ahead_of(np.zeros(4), 0, NOTHING) == 2


def test_one_score_for_everything_gains_nothing() -> None:
    assert Figures.of(np.array([ahead_of(np.ones(1_000), 0, NOTHING)])).hit_rate.mean == 0


def test_hidden_items_are_neither_ahead_nor_equal() -> None:
    scores = np.array([3.0, 2.0, 1.0, 1.0, 1.0])
    assert ahead_of(scores, 4, np.array([0])) == 2
    assert ahead_of(scores, 4, np.array([0, 2, 3])) == 1


def test_what_is_not_listed_is_nowhere() -> None:
    scores = np.array([3.0, -np.inf])
    assert ahead_of(scores, 1, NOTHING) == NOWHERE
    assert ahead_of(scores, 0, np.array([0])) == NOWHERE


def test_nan_is_an_error_wherever_it_stands() -> None:
    for place in range(3):
        scores = np.array([3.0, 2.0, 1.0])
        scores[place] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            ahead_of(scores, 1, NOTHING)


def test_measures_worked_out_by_hand() -> None:
    found = Figures.of(np.array([0, 2, 19, 20, NOWHERE]))
    assert found.ranked == 5
    assert found.hit_rate.mean == pytest.approx(3 / 5)
    assert found.mrr.mean == pytest.approx((1 + 1 / 3 + 1 / 20) / 5)
    assert found.ndcg.mean == pytest.approx((1 + 1 / 2 + 1 / math.log2(21)) / 5)
    assert found.hit_rate.error == pytest.approx(math.sqrt(0.6 * 0.4 / 5))


def test_without_events_there_is_no_error_to_report() -> None:
    found = Figures.of(NOTHING)
    assert (found.ranked, found.hit_rate.mean, found.hit_rate.error) == (0, 0.0, None)
