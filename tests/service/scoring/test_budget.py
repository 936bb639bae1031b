import pytest

from service.scoring.budget import BURST_S, Budget


def test_a_share_of_the_time_that_passes_may_be_spent() -> None:
    budget = Budget(0.5, now=100.0)
    assert budget.left_s == 0
    budget.earn(100.2)
    assert budget.left_s == pytest.approx(0.1)
    budget.spend(0.04)
    assert budget.left_s == pytest.approx(0.06)
    budget.earn(100.2)
    assert budget.left_s == pytest.approx(0.06)


def test_little_is_saved_up() -> None:
    budget = Budget(0.5, now=0.0)
    budget.earn(3600.0)
    assert budget.left_s == BURST_S


def test_what_was_overdrawn_is_earned_back_first() -> None:
    budget = Budget(0.5, now=0.0)
    budget.earn(0.1)
    budget.spend(0.25)
    budget.earn(0.4)
    assert budget.left_s == pytest.approx(-0.05)
    budget.earn(0.6)
    assert budget.left_s == pytest.approx(0.05)
