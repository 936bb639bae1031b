import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.model.contexts import Contexts
from service.model.losses import Sample
from service.model.network import Shape
from service.model.recommender import Recommender
from service.training.learner import Learner
from service.training.learner_config import LearnerConfig
from service.training.weights import Outcome, Step, Weights, first_rows, unique_rows
from tests.service.training.streams import clicks, micro_batch, random_events, state_of

SMALL = LearnerConfig(
    dim=8, hidden=16, history=5, negatives=32, replay_capacity=200, replay_recent=50, half_lives=(50.0, 500.0)
)
IDS = [f"i{n}" for n in range(40)]


def fresh() -> Weights:
    """Of 40 items that have been counted once."""
    shape = Shape(SMALL.dim, SMALL.history, SMALL.hidden, len(SMALL.half_lives))
    model = Recommender.fresh(shape, SMALL.half_lives)
    weights = Weights(model.network, model.popularity, SMALL)
    model.resize(len(IDS))
    weights.begin(np.arange(len(IDS)), IDS)
    model.popularity.observe(np.arange(len(IDS)), np.arange(len(IDS)), np.ones(len(IDS)))
    return weights


def step_of(history: list[list[int]], target: list[int]) -> Step:
    return Step(
        clock=len(IDS),
        contexts=Contexts.of(np.array(history, np.int32).reshape(-1, SMALL.history)),
        target=np.array(target, np.int64),
        weight=np.ones(len(target), np.float32),
        fresh=len(target),
        judging=len(target),
    )


def sample_of(rows: list[int]) -> Sample:
    return Sample(np.array(rows, np.int64), np.zeros(len(rows), np.float32))


def everything(weights: Weights) -> dict[str, bytes]:
    tensors = {name: tensor.tobytes() for name, tensor in {**weights.network.tensors, **weights.tensors}.items()}
    tables = {table.name: np.asarray(table.snapshot().values).tobytes() for table in (weights.rows, weights.adagrad)}
    return tensors | tables | {"unit": weights.network.unit.data.numpy().tobytes()}


def test_first_rows_are_of_length_about_1_whoever_comes_first() -> None:
    rows = first_rows(0, IDS, 64)
    assert torch.linalg.vector_norm(rows, dim=1).mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(first_rows(0, IDS[::-1], 64).flip(0), rows)
    assert not torch.equal(first_rows(1, IDS, 64), rows)


@torch.no_grad()
def test_a_step_changes_the_rows_that_take_part_and_says_so() -> None:
    weights = fresh()
    rows = weights.rows.data.clone()
    for table in (weights.rows, weights.adagrad):
        table.drain()
    outcome = weights.descend(step_of([[-1, -1, -1, 3, 7], [-1, -1, -1, -1, 9]], [11, 3]), sample_of([5, 11, 30]))
    part = [3, 5, 7, 9, 11, 30]
    assert outcome.touched == len(part)
    assert outcome.loss is not None
    assert 0 < outcome.grad_norm < np.inf
    assert not outcome.skipped
    assert weights.rows.drain().index.tolist() == part
    assert weights.adagrad.drain().index.tolist() == part
    changed = (weights.rows.data != rows).any(1)
    assert np.flatnonzero(changed.numpy()).tolist() == part
    assert np.flatnonzero(weights.adagrad.data.numpy()).tolist() == part
    assert weights.optimizer.steps == 1


@torch.no_grad()
def test_steps_on_the_same_contexts_lower_their_loss() -> None:
    weights = fresh()
    step, sample = step_of([[-1, -1, -1, 3, 7], [-1, -1, -1, -1, 9]], [11, 3]), sample_of([5, 20, 30])
    losses = [weights.descend(step, sample).loss or 0.0 for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]


@torch.no_grad()
def test_without_contexts_nothing_changes() -> None:
    weights = fresh()
    before = everything(weights)
    assert weights.descend(step_of([], []), sample_of([5, 11])) == Outcome()
    assert everything(weights) == before
    assert weights.optimizer.steps == 0


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    weights = fresh()
    weights.rows.data[3] = torch.nan
    weights.network.refresh()
    before = everything(weights)
    outcome = weights.descend(step_of([[-1, -1, -1, 3, 7]], [11]), sample_of([5]))
    assert outcome == Outcome(grad_norm=np.inf, skipped=True)
    assert everything(weights) == before
    assert weights.optimizer.steps == 0


def test_a_reset_begins_anew_what_came_after_the_version() -> None:
    """Also where it has the row of an item that was there then."""
    learner = Learner(SMALL)
    learner.learn(micro_batch(random_events(300, seed=1)))
    good = state_of(learner.snapshot())
    learner.learn(micro_batch(clicks([("u1", "late"), ("u2", "late")]), first_key=1000))
    learner.config = dataclasses.replace(SMALL, max_items=learner.items.in_use)
    for key in (2000, 3000):
        events = clicks([("u1", "i1"), ("u1", "in another's row"), ("u3", "late")])
        learner.learn(micro_batch(events, first_key=key))
    learner.drain()
    learner.reset_weights(good)
    drained, ids = learner.drain(), learner.items.names.ids
    rows, sums = learner.weights.rows.data.numpy(), learner.weights.adagrad.data.numpy()
    ids_then, rows_then, sums_then = (
        np.asarray(good.table(name)) for name in ("item/id", "item/row", "trainer/item/adagrad")
    )
    late = {"late", "in another's row"}
    assert late < set(ids)
    assert ids_then[ids.index("in another's row")] not in ("", "in another's row")
    for row, item in enumerate(ids):
        if item in late:
            assert np.array_equal(rows[row], first_rows(SMALL.seed, [item], SMALL.dim)[0].numpy())
            assert sums[row] == 0
        elif item:
            assert item == ids_then[row]
            assert np.array_equal(rows[row], rows_then[row])
            assert sums[row] == sums_then[row]
        else:
            assert not rows[row].any()
            assert sums[row] == 0
    assert "" in ids
    assert np.count_nonzero(sums) > 20
    # whoever follows by what changed is told of all of them
    assert {row for row, item in enumerate(ids) if item} <= set(drained.tables["item/row"].index.tolist())
    assert drained.tables["trainer/item/adagrad"].index.tolist() == list(range(len(ids)))


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 29), max_size=20), max_size=3))
def test_unique_rows_ascend(parts: list[list[int]]) -> None:
    found = unique_rows(30, *(np.array(part, np.int64) for part in parts))
    assert found.tolist() == sorted({row for part in parts for row in part})
