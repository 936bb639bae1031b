import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.reranking import NOT_LISTED
from service.training.evaluation.measures import RankSums
from service.training.evaluation.quality import Quality


def test_means_and_their_errors_by_hand() -> None:
    found = Quality.of(np.array([0, 1, 19, 20, NOT_LISTED]))
    assert found.ranked == 5
    assert found.hit_rate.value == pytest.approx(3 / 5)
    assert found.hit_rate.standard_error == pytest.approx(math.sqrt(3 / 5 * 2 / 5 / 5))
    reciprocal = [1, 1 / 2, 1 / 20, 0, 0]
    assert found.mrr.value == pytest.approx(np.mean(reciprocal))
    assert found.mrr.standard_error == pytest.approx(np.std(reciprocal) / math.sqrt(5))
    gains = [1, 1 / math.log2(3), 1 / math.log2(21), 0, 0]
    assert found.ndcg.value == pytest.approx(np.mean(gains))
    assert found.ndcg.standard_error == pytest.approx(np.std(gains) / math.sqrt(5))


@pytest.mark.parametrize("ahead", [[], [3]])
def test_of_none_or_one_event_there_is_no_error(ahead: list[int]) -> None:
    found = Quality.of(np.array(ahead, np.int64))
    assert found.ranked == len(ahead)
    assert found.hit_rate.value == len(ahead)
    assert all(math.isnan(mean.standard_error) for mean in (found.hit_rate, found.mrr, found.ndcg))


@given(st.lists(st.integers(0, 30), min_size=1))
def test_the_means_are_those_of_the_sums(ahead: list[int]) -> None:
    found, sums = Quality.of(np.array(ahead)), RankSums.of(np.array(ahead))
    assert found.hit_rate.value == pytest.approx(sums.hit_rate)
    assert found.mrr.value == pytest.approx(sums.mean_mrr)
    assert found.ndcg.value == pytest.approx(sums.mean_ndcg)
