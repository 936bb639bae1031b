from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.model.channel import Examples, Lesson, Taught
from service.model.channels.learning_network import LearningNetwork, Step, first_rows, unique_rows
from service.model.config import Limits
from service.model.contexts import Contexts
from service.model.losses import Sample
from service.model.recommender import Recommender
from service.training.learner import Learner
from tests.service.model.configs import network_of, small
from tests.service.training.streams import clicks, micro_batch, random_events, state_of

LENGTH = 5
SMALL = small()
IDS = [f"i{n}" for n in range(40)]


@dataclass
class World:
    """A network over 40 items that have been counted once."""

    model: Recommender
    network: LearningNetwork

    @classmethod
    def fresh(cls) -> "World":
        model, channels = Recommender.to_learn_in(SMALL)
        model.resize(len(IDS))
        every = np.arange(len(IDS))
        once = Examples(
            every, every, every.astype(np.float64), np.ones(len(IDS)), np.full((len(IDS), LENGTH), -1, np.int32)
        )
        for channel in channels:
            channel.begin(every, IDS)
            channel.observe(once, Examples.none(LENGTH))
        model.clock = len(IDS)
        (network,) = [channel for channel in channels if isinstance(channel, LearningNetwork)]
        return cls(model, network)

    def descend(self, step: Step, sample: Sample) -> Taught:
        nothing = Examples.none(LENGTH)
        lesson = Lesson(0, self.model.clock, 0, 0, nothing, nothing, self.model.blend, self.model.common)
        return self.network.descend(step, sample, lesson)

    def everything(self) -> dict[str, bytes]:
        assert self.model.blend is not None
        tensors = {**self.network.tensors, **self.model.blend.tensors, **self.model.blend.trainer_tensors}
        tables = (self.network.rows, self.network.adagrad, self.network.unit)
        found = {name: tensor.tobytes() for name, tensor in tensors.items()}
        return found | {f"table {n}": np.asarray(table.snapshot().values).tobytes() for n, table in enumerate(tables)}


def step_of(history: list[list[int]], target: list[int]) -> Step:
    return Step(
        contexts=Contexts.of(np.array(history, np.int32).reshape(-1, LENGTH)),
        target=np.array(target, np.int64),
        weight=np.ones(len(target), np.float32),
        fresh=len(target),
        replayed=0,
        teaching=len(target),
    )


def sample_of(rows: list[int]) -> Sample:
    return Sample(np.array(rows, np.int64), np.zeros(len(rows), np.float32))


def test_first_rows_are_of_length_about_1_whoever_comes_first() -> None:
    rows = first_rows(0, IDS, 64)
    assert torch.linalg.vector_norm(rows, dim=1).mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(first_rows(0, IDS[::-1], 64).flip(0), rows)
    assert not torch.equal(first_rows(1, IDS, 64), rows)


@torch.no_grad()
def test_a_step_changes_the_rows_that_take_part_and_says_so() -> None:
    world = World.fresh()
    network = world.network
    rows = network.rows.data.clone()
    for table in (network.rows, network.adagrad):
        table.drain()
    outcome = world.descend(step_of([[-1, -1, -1, 3, 7], [-1, -1, -1, -1, 9]], [11, 3]), sample_of([5, 11, 30]))
    part = [3, 5, 7, 9, 11, 30]
    assert outcome.loss is not None
    assert not outcome.skipped
    assert network.rows.drain().index.tolist() == part
    assert network.adagrad.drain().index.tolist() == part
    changed = (network.rows.data != rows).any(1)
    assert np.flatnonzero(changed.numpy()).tolist() == part
    assert np.flatnonzero(network.adagrad.data.numpy()).tolist() == part
    assert world.model.blend is not None
    assert network.optimizer.steps == world.model.blend.optimizer.steps == 1


@torch.no_grad()
def test_steps_on_the_same_contexts_lower_their_loss() -> None:
    world = World.fresh()
    step, sample = step_of([[-1, -1, -1, 3, 7], [-1, -1, -1, -1, 9]], [11, 3]), sample_of([5, 20, 30])
    losses = [world.descend(step, sample).loss or 0.0 for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]


@torch.no_grad()
def test_without_contexts_nothing_changes() -> None:
    world = World.fresh()
    before = world.everything()
    assert world.descend(step_of([], []), sample_of([5, 11])) == Taught()
    assert world.everything() == before
    assert world.network.optimizer.steps == 0


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    world = World.fresh()
    world.network.write(np.array([3]), torch.full((1, 8), torch.nan))
    before = world.everything()
    outcome = world.descend(step_of([[-1, -1, -1, 3, 7]], [11]), sample_of([5]))
    assert outcome == Taught(fresh=1, skipped=True)
    assert world.everything() == before
    assert world.network.optimizer.steps == 0


def test_a_reset_begins_anew_what_came_after_the_version() -> None:
    """Also where it has the row of an item that was there then."""
    learner = Learner(SMALL)
    learner.learn(micro_batch(random_events(300, seed=1)))
    good = state_of(learner.snapshot())
    learner.learn(micro_batch(clicks([("u1", "late"), ("u2", "late")]), first_key=1000))
    learner.limits = Limits(max_items=learner.items.in_use)
    for key in (2000, 3000):
        events = clicks([("u1", "i1"), ("u1", "in another's row"), ("u3", "late")])
        learner.learn(micro_batch(events, first_key=key))
    learner.drain()
    learner.reset_weights(good)
    drained, ids = learner.drain(), learner.items.names.ids
    network = network_of(learner)
    rows, sums = network.rows.data.numpy(), network.adagrad.data.numpy()
    ids_then, rows_then, sums_then = (
        np.asarray(good.table(name)) for name in ("item/id", "item/row", "trainer/item/adagrad")
    )
    late = {"late", "in another's row"}
    assert late < set(ids)
    assert ids_then[ids.index("in another's row")] not in ("", "in another's row")
    for row, item in enumerate(ids):
        if item in late:
            assert np.array_equal(rows[row], first_rows(SMALL.seed, [item], 8)[0].numpy())
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


def test_a_dislike_pushes_its_item_down_for_whom_it_concerns() -> None:
    """Those who came from a dislike c, and do nothing else; those who came from x like it."""
    scores = {}
    for dislikes in (0.0, 1.0):
        learner = Learner(small(dislikes=dislikes), evaluate_sample=0)
        for n in range(40):
            first = [(f"u{n}", "a", "click"), (f"v{n}", "x", "click")]
            then = [(f"u{n}", "c", "dislike"), (f"v{n}", "c", "like")]
            learner.learn(micro_batch([*first, *then], first_key=1 + 10 * n))
        latest = learner.items.rows_of(["a", "x"])[:, None]
        contexts = Contexts.of(np.pad(latest, ((0, 0), (4, 0)), constant_values=-1))
        assert learner.recommender.catalogue is not None
        of_c = learner.recommender.catalogue.scores(contexts)[:, learner.items.rows_of(["c"])[0]]
        scores[dislikes] = of_c.tolist()
    (by_a, by_x), (disliked_by_a, liked_by_x) = scores[0.0], scores[1.0]
    assert disliked_by_a < by_a - 1
    assert liked_by_x == pytest.approx(by_x, abs=1)
