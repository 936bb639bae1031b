import numpy as np
import pytest

from service.training.evaluation.measures import PairedSums, RankSums


def test_measures_worked_out_by_hand() -> None:
    sums = RankSums.of(np.array([0, 1, 3, 19, 20, 1 << 40]))
    assert sums.n == 6
    assert sums.hits == 4
    assert sums.mrr == pytest.approx(1 + 1 / 2 + 1 / 4 + 1 / 20)
    assert sums.ndcg == pytest.approx(1 + 1 / np.log2(3) + 1 / np.log2(5) + 1 / np.log2(21))


def test_paired_sums_by_hand() -> None:
    sums = PairedSums.of(np.array([0, 2, 50]), np.array([0, 0, 2]))  # NDCG 1, .5, 0 against 1, 1, .5
    assert sums.n == 3
    assert sums.mean == pytest.approx(-1 / 3)
    assert sums.reference == pytest.approx(2.5 / 3)
    assert sums.standard_error == pytest.approx(np.sqrt((0.5 / 3 - 1 / 9) / 3))
    sums.add(PairedSums.of(np.array([0]), np.array([0])), half_life=1.0)
    assert sums.n == 2.5
    assert sums.mean == pytest.approx(-0.5 / 2.5)
