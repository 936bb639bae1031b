import numpy as np
import pytest

from service.model.floor import CUTOFF, FEWEST, HALF_LIFE, RANKER, YOUNG, Floor, reciprocal

MISSED = 1 << 40


def ranks(*ahead: int, n: int = 1) -> np.ndarray:
    return np.array(ahead * n, np.int64)


def floor_after(ranker: int, orders: list[int], n: float, channels: int = 1) -> Floor:
    """n events, at the same rank each time."""
    floor = Floor(len(orders), channels)
    floor.observe(ranks(ranker, n=int(n)), [ranks(order, n=int(n)) for order in orders])
    return floor


@pytest.mark.parametrize(
    ("ahead", "wanted"), [(0, 1.0), (1, 0.5), (CUTOFF - 1, 1 / CUTOFF), (CUTOFF, 0.0), (MISSED, 0.0)]
)
def test_the_reciprocal_rank_is_within_twenty(ahead: int, wanted: float) -> None:
    assert reciprocal(ranks(ahead)).tolist() == [wanted]


@pytest.mark.parametrize(
    ("ranker", "orders", "n", "serves"),
    [
        (3, [0, 1], FEWEST - 1, RANKER),  # too few to say
        (3, [2, 0], FEWEST, 1),  # young: the best so far
        (3, [3, 9], FEWEST, RANKER),  # as good is good enough
        (0, [3, 9], FEWEST, RANKER),
        (3, [0, 1], YOUNG, 0),  # behind beyond noise
        (0, [MISSED], 10, RANKER),
        (3, [], YOUNG, RANKER),  # nobody else
    ],
)
def test_who_serves(ranker: int, orders: list[int], n: float, serves: int) -> None:
    assert floor_after(ranker, orders, n).serves == serves


def mixed(n: int, better: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """n events of which the ranker has `better` first and the order the others."""
    ranker, order = np.full(n, 1), np.zeros(n, np.int64)
    ranker[:better], order[:better] = 0, 1
    return ranker, [order]


@pytest.mark.parametrize(("better", "serves"), [(500, RANKER), (490, RANKER), (400, 0), (600, RANKER)])
def test_an_old_ranker_serves_unless_it_is_behind_beyond_noise(better: int, serves: int) -> None:
    """Of 1,000 events 490 to 510 are no difference; 400 to 600 are."""
    floor = floor_after(0, [1], YOUNG)  # grown up, and ahead
    for _ in range(20):
        floor.observe(*mixed(1_000, better))
    assert floor.serves == serves


def test_a_ranker_that_was_behind_serves_again_once_it_is_not() -> None:
    floor = floor_after(9, [0], 1_000)
    assert floor.serves == 0
    served = []
    for _ in range(20):
        floor.observe(ranks(0, n=500), [ranks(1, n=500)])
        served.append(floor.serves)
    assert (served[0], served[-1]) == (0, RANKER)
    assert served == sorted(served, reverse=True)  # it changes once


def test_what_is_long_ago_counts_for_little() -> None:
    floor = floor_after(0, [9], 5 * HALF_LIFE)
    floor.observe(ranks(1, n=int(HALF_LIFE)), [ranks(0, n=int(HALF_LIFE))])
    assert floor.serves == RANKER  # as much again is not enough
    for _ in range(5):
        floor.observe(ranks(1, n=int(HALF_LIFE)), [ranks(0, n=int(HALF_LIFE))])
    assert floor.serves == 0


def test_a_batch_without_ranked_events_changes_nothing() -> None:
    floor = floor_after(3, [0], 20)
    before = floor.state
    floor.observe(ranks(n=0), [ranks(n=0)])
    assert floor.state.tobytes() == before.tobytes()


def test_the_lead_is_over_the_best_channel_alone() -> None:
    assert Floor(2, 1).lead is None
    lead = floor_after(0, [1, 0], 100, channels=1).lead  # the other order is a blend, not a channel
    assert lead == pytest.approx((0.5, 0.0), abs=1e-6)
    floor = Floor(1, 1)
    floor.observe(*mixed(1_000, 400))  # 600 times behind by a half, 400 times ahead
    assert floor.lead == pytest.approx((-0.1, np.sqrt((0.25 - 0.01) / 1_000)))


def test_restored_it_decides_as_before() -> None:
    rng = np.random.default_rng(0)
    unkilled = Floor(3, 2)
    for _ in range(60):
        mortal = Floor(3, 2)
        mortal.restore(unkilled.state)
        m = int(rng.integers(0, 40))
        seen = rng.integers(0, 25, m), [rng.integers(0, 25, m) for _ in range(3)]
        for each in (unkilled, mortal):
            each.observe(*seen)
        assert mortal.serves == unkilled.serves
        assert mortal.state.tobytes() == unkilled.state.tobytes()


def test_the_state_of_other_orders_is_refused() -> None:
    with pytest.raises(ValueError, match=r"12 numbers, 9 are needed"):
        Floor(1, 1).restore(Floor(2, 1).state)
