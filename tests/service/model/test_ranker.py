from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.weights import State, Update
from service.model.channels.neighbours import Neighbours, NeighboursConfig
from service.model.channels.popularity import Popularity, PopularityConfig
from service.model.config import RankerConfig
from service.model.features import FeatureSet
from service.model.ranker import BEGINNING, STEP, TASKS, Ranker, RankingLesson, joined

RATE = 3e-3
FEATURES = FeatureSet(
    [Neighbours(NeighboursConfig()), Popularity(PopularityConfig(half_lives=(300.0, 2_000.0), events=True))]
)


def ranker(*, shaken: bool = True, **fields: float) -> Ranker:
    """`shaken`: with weights of any size, where a new one has zeros."""
    made = Ranker(RankerConfig(hidden=8, rate=RATE).model_copy(update=fields), FEATURES, seed=1)
    if shaken:
        generator = torch.Generator().manual_seed(2)
        made._learned.vector.add_(torch.randn(made._learned.vector.shape, generator=generator), alpha=0.3)
        made.weights.vector.copy_(made._learned.vector)
    return made


def lesson(n: int, seed: int = 0, candidates: int = 12) -> RankingLesson:
    """n histories of up to so many candidates, some of them purchases, some of them for the task `purchase` alone."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(2, candidates + 1, n)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return RankingLesson(
        rng.normal(size=(offsets[-1], FEATURES.width)).astype(np.float32),
        offsets,
        offsets[:-1] + rng.integers(0, counts),
        np.stack([rng.random(n) < 0.8, rng.random(n) < 0.3], axis=1).astype(np.float32),
    )


def part(of: RankingLesson, begin: int, end: int) -> RankingLesson:
    first, last = of.offsets[begin], of.offsets[end]
    offsets = of.offsets[begin : end + 1] - first
    return RankingLesson(of.x[first:last], offsets, of.target[begin:end] - first, of.weight[begin:end])


def state_of(made: Ranker) -> State:
    state = State()
    state.apply(Update(full=True, tables={}, tensors={**made.tensors, **made.trainer_tensors}))
    return state


def everything(made: Ranker) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in {**made.tensors, **made.trainer_tensors}.items()}


# -- learning ----------------------------------------------------------------------------------------------------------


def loss_of(weights: dict[str, torch.Tensor], taught: RankingLesson) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of all tasks, the mean over histories, and that of clicks alone, by what the docstring says."""
    x = torch.from_numpy(taught.x).double()
    first = (x @ weights["first"] + weights["first_bias"]).relu()
    second = (first @ weights["second"] + weights["second_bias"]).relu()
    z = x @ weights["linear"] + second @ weights["out"]
    each = torch.stack(
        [
            torch.from_numpy(taught.weight[b]).double()
            * -torch.log_softmax(z[taught.offsets[b] : taught.offsets[b + 1]], 0)[taught.target[b] - taught.offsets[b]]
            for b in range(len(taught.target))
        ]
    )
    return each.sum() / len(each), each[:, 0].sum() / len(each)


@pytest.mark.parametrize("n", [1, 5, STEP])
def test_the_gradient_is_that_of_the_loss(n: int) -> None:
    made, taught = ranker(), lesson(n, seed=n)
    taught.weight[0] = 1
    weights = {name: view.double().clone().requires_grad_() for name, view in made._learned.views.items()}
    loss, of_clicks = loss_of(weights, taught)
    gradients = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
    result = made.learn(taught)
    assert result.loss == pytest.approx(of_clicks.item(), rel=1e-4)
    assert (result.fresh, result.skipped) == (n, False)
    for name, wanted in gradients.items():
        torch.testing.assert_close(made._gradient[name].double(), wanted, rtol=1e-3, atol=1e-5)
        assert float(wanted.abs().max()) > 1e-4, f"{name} has learned nothing here"


def test_a_purchase_teaches_its_task_alone_where_it_counts_for_nothing_else() -> None:
    made, taught = ranker(shaken=False), lesson(STEP)
    only = RankingLesson(taught.x, taught.offsets, taught.target, np.tile(np.array([0, 1], np.float32), (STEP, 1)))
    before = made._learned["linear"].clone()
    made.learn(only)
    moved = (made._learned["linear"] != before).any(0)
    assert dict(zip(TASKS, moved.tolist(), strict=True)) == {"click": False, "purchase": True}


@pytest.mark.parametrize("n", [1, 8, STEP])
def test_fewer_histories_make_a_step_that_is_as_much_shorter(n: int) -> None:
    """Adam's first step goes as far as the rate in each parameter that has a gradient, whatever its size."""
    made = ranker()
    before = made._learned.vector.clone()
    made.learn(lesson(n))
    gone = (made._learned.vector - before).abs()[made._gradient.vector.abs() > 1e-4]
    assert len(gone)
    torch.testing.assert_close(gone, torch.full_like(gone, RATE * n / STEP), rtol=1e-2, atol=0)


def test_where_a_stream_is_cut_matters_little() -> None:
    """Twice the histories in a step are nearly two steps of half the length."""
    wholes, halves, taught = ranker(), ranker(), lesson(20 * STEP)
    for begin in range(0, 20 * STEP, STEP):
        wholes.learn(part(taught, begin, begin + STEP))
    for begin in range(0, 20 * STEP, STEP // 2):
        halves.learn(part(taught, begin, begin + STEP // 2))
    start = ranker()._learned.vector
    apart, gone = (wholes._learned.vector - halves._learned.vector).norm(), (wholes._learned.vector - start).norm()
    assert float(apart) < 0.5 * float(gone)
    assert wholes._steps == pytest.approx(halves._steps)


def test_a_lesson_in_parts_of_whole_steps_is_the_lesson() -> None:
    whole, parts, taught = ranker(), ranker(), lesson(3 * STEP + 5)
    whole.learn(taught)
    for begin in range(0, 3 * STEP + 5, STEP):
        parts.learn(part(taught, begin, min(begin + STEP, 3 * STEP + 5)))
    assert everything(whole) == everything(parts)


def test_it_learns_which_candidate_comes() -> None:
    """One feature says it, and none of those with which it begins."""
    made = ranker(shaken=False, rate=0.02)
    rng = np.random.default_rng(0)
    column = FEATURES.column("history.latest")
    losses = []
    for seed in range(60):
        taught = lesson(STEP, seed=seed)
        taught.x[taught.target, column] += 3.0
        taught.weight[:, 0] = 1.0
        losses.append(made.learn(taught).loss)
    assert losses[-1] is not None
    assert losses[0] is not None
    assert losses[-1] < 0.5 * losses[0]
    pairs = rng.normal(size=(2, FEATURES.width)).astype(np.float32)
    pairs[1] = pairs[0]
    pairs[1, column] += 3.0
    scores = made.score(pairs)
    assert scores[1] > scores[0] + 1


# -- what is not finite ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
def test_a_gradient_that_is_not_finite_changes_nothing(value: float) -> None:
    made, taught = ranker(), lesson(STEP)
    made.learn(lesson(STEP, seed=9))
    before = everything(made)
    taught.x[taught.target[3]] = value
    result = made.learn(taught)
    assert (result.skipped, result.loss, result.fresh) == (True, None, 0)
    assert everything(made) == before


def test_the_steps_before_it_stay_and_those_after_it_are_left_out() -> None:
    made, other, taught = ranker(), ranker(), lesson(3 * STEP)
    taught.x[taught.target[STEP]] = np.nan
    result = made.learn(taught)
    assert (result.skipped, result.fresh) == (True, STEP)
    other.learn(part(taught, 0, STEP))
    assert everything(made) == everything(other)


def test_without_histories_nothing_is_learned() -> None:
    made = ranker()
    before = everything(made)
    result = made.learn(lesson(0))
    assert (result.fresh, result.loss, result.skipped) == (0, None, False)
    assert everything(made) == before


# -- scores ------------------------------------------------------------------------------------------------------------


@given(n=st.integers(1, 200), seed=st.integers(0, 50), data=st.data())
@settings(max_examples=60)
def test_the_score_of_a_pair_does_not_depend_on_the_others(n: int, seed: int, data: st.DataObject) -> None:
    """Bit for bit, however few there are: see FEWEST."""
    made = ranker()
    x = np.random.default_rng(seed).normal(size=(n, FEATURES.width)).astype(np.float32)
    scores = made.score(x)
    begin = data.draw(st.integers(0, n - 1))
    end = data.draw(st.integers(begin + 1, n))
    assert made.score(x[begin:end]).tobytes() == scores[begin:end].tobytes()


def test_a_new_ranker_is_the_fixed_blend() -> None:
    x = np.random.default_rng(0).normal(size=(20, FEATURES.width)).astype(np.float32)
    there = {name: weight for name, weight in BEGINNING.items() if name in FEATURES.names}
    assert len(there) == 2
    wanted = sum(weight * x[:, FEATURES.column(name)] for name, weight in there.items())
    assert ranker(shaken=False).score(x) == pytest.approx(wanted, rel=1e-5, abs=1e-5)


def test_purchases_count_in_the_score_as_much_as_is_said() -> None:
    x = np.random.default_rng(0).normal(size=(20, FEATURES.width)).astype(np.float32)
    clicks, purchases, both = (ranker(purchases=share).score(x) for share in (0.0, 1.0, 0.25))
    assert both == pytest.approx(0.75 * clicks + 0.25 * purchases, rel=1e-4, abs=1e-5)
    assert not np.allclose(clicks, purchases)


def test_what_serves_moves_less_than_what_is_learned() -> None:
    made = ranker(shaken=False)
    for seed in range(200):
        made.learn(lesson(STEP, seed=seed))
    served, learned = made.weights.vector.clone(), made._learned.vector.clone()
    for seed in range(200, 220):
        made.learn(lesson(STEP, seed=seed))
    assert 0 < float((made.weights.vector - served).norm()) < 0.5 * float((made._learned.vector - learned).norm())


# -- versions ----------------------------------------------------------------------------------------------------------


def test_restored_it_goes_on_bit_for_bit() -> None:
    unkilled = ranker()
    for seed in range(6):
        mortal = ranker(shaken=False)
        mortal.restore(state_of(unkilled))
        for each in (unkilled, mortal):
            each.learn(lesson(20 + seed, seed=seed))
        assert everything(mortal) == everything(unkilled)


def test_features_of_another_build_are_refused() -> None:
    made = ranker()
    other = Ranker(RankerConfig(), FeatureSet([Neighbours(NeighboursConfig())]), seed=1)
    assert made.fits(made.tensors)
    assert made.fits({})  # an update without the ranker
    assert not made.fits(other.tensors)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_lessons_join_in_order(sizes: Sequence[int]) -> None:
    lessons = [lesson(n, seed=k) for k, n in enumerate(sizes)]
    whole = joined(lessons)
    assert whole.offsets.tolist() == np.concatenate([[0], np.cumsum(np.diff(whole.offsets))]).tolist()
    at = 0
    for each in lessons:
        again = part(whole, at, at + len(each.target))
        for field in ("x", "offsets", "target", "weight"):
            assert np.array_equal(getattr(again, field), getattr(each, field)), field
        at += len(each.target)
    assert at == len(whole.target)
