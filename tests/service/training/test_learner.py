import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.micro_batch import ItemChange
from model_store.weights import State, Update
from service.model.config import ModelConfig
from service.model.recommender import Recommender
from service.training.effort import Effort
from service.training.learner import Learner
from tests.service.model.configs import network_of, popularity_of, ranked, small
from tests.service.training.streams import (
    assert_same,
    clicks,
    in_batches,
    micro_batch,
    random_events,
    state_of,
    world_of_classes,
)

SMALL = small()
Form = Callable[..., ModelConfig]
FORMS: dict[str, Form] = {
    "ranker": ranked,
    "ranker and network": partial(ranked, network=True),
    "blend": small,  # models of earlier releases
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    """Makes a small configuration of one form of the model, with other values for fields of its sections."""
    return FORMS[request.param]


def test_the_same_batches_give_the_same_bits(form: Form) -> None:
    batches = list(in_batches(random_events(600, seed=1), 64))
    left, right = Learner(form()), Learner(form())
    for batch in batches:
        assert left.learn(batch, Effort(2)) == right.learn(batch, Effort(2))
        assert_same(left.drain(), right.drain())
    assert_same(left.snapshot(), right.snapshot())


def test_another_seed_gives_other_weights() -> None:
    batch = micro_batch(random_events(100, seed=1))
    rows = []
    for seed in (0, 1):
        learner = Learner(small(seed=seed))
        learner.learn(batch)
        rows.append(np.asarray(learner.snapshot().tables["item/row"].values))
    assert not np.array_equal(rows[0], rows[1])


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    size=st.integers(1, 90),
    killed=st.lists(st.booleans(), min_size=30, max_size=30),
    replay=st.lists(st.integers(0, 4), min_size=30, max_size=30),
    bounded=st.booleans(),
    form=st.sampled_from(sorted(FORMS)),
)
def test_a_restored_learner_goes_on_bit_for_bit(
    seed: int, size: int, killed: list[bool], replay: list[int], bounded: bool, form: str
) -> None:
    config = FORMS[form](seed=seed)
    if bounded:
        config = FORMS[form](seed=seed, max_items=100, max_users=60)
    unkilled, mortal = Learner(config), Learner(config)
    state = state_of(unkilled.snapshot())
    unkilled.drain()
    mortal.drain()
    batches = list(in_batches(random_events(10 * size, seed, users=80, items=150), size))
    deleted = [ItemChange(f"i{n}", deleted=True) for n in range(0, 150, 15)]
    batches = [dataclasses.replace(batch, catalogue=(change,)) for batch, change in zip(batches, deleted, strict=True)]
    for batch, dies, n in zip(batches, killed, replay, strict=False):
        if dies:
            mortal = Learner.restore(config, state)
        left, right = unkilled.learn(batch, Effort(n)), mortal.learn(batch, Effort(n))
        assert left == right
        delta = unkilled.drain()
        assert_same(delta, mortal.drain())
        state.apply(delta)
    assert_same(unkilled.snapshot(), state.snapshot())


def test_a_learner_restored_before_every_batch_goes_on_bit_for_bit(form: Form) -> None:
    unkilled, state = Learner(form()), state_of(Learner(form()).snapshot())
    for batch in in_batches(random_events(600, seed=6), 60):
        mortal = Learner.restore(form(), state)
        assert unkilled.learn(batch) == mortal.learn(batch)
        state.apply(mortal.drain())
    assert_same(unkilled.snapshot(), state.snapshot())


def test_a_reader_of_deltas_has_what_a_reader_of_the_snapshot_has(form: Form) -> None:
    learner = Learner(form(max_items=100))
    following = Recommender(form())
    following.apply(learner.snapshot())
    learner.drain()
    for batch in in_batches(random_events(1500, seed=3, items=200), 64):
        learner.learn(batch)
        following.apply(learner.drain())
    fresh = Recommender(form())
    fresh.apply(learner.snapshot())
    histories = np.random.default_rng(0).integers(-1, fresh.size, (30, 5))
    assert fresh.ids == following.ids == learner.recommender.ids
    wanted_rows, wanted_scores = learner.recommender.top_k(histories, 10)
    for reader in (fresh, following):
        rows, scores = reader.top_k(histories, 10)
        assert rows.tobytes() == wanted_rows.tobytes()
        assert scores.tobytes() == wanted_scores.tobytes()
    known = [item for item in fresh.ids if item]
    assert [following.ids[row] for row in following.rows_of(known)] == known
    assert following.rows_of(["never heard of"]).tolist() == [-1]


@pytest.mark.parametrize("size", [64, 256])
def test_in_a_world_of_classes_the_right_class_leads_the_list(size: int) -> None:
    learner = Learner(small(dim=16), evaluate_sample=None)
    results = [learner.learn(batch, Effort(2)) for batch in in_batches(world_of_classes(6000, seed=0), size)]
    rows = learner.recommender.rows_of([f"c{c}-{i}" for c in range(10) for i in range(10)]).reshape(10, 10)
    lists, _ = learner.recommender.top_k(rows[:, :3], 10)
    right = np.mean([np.isin(lists[c], rows[c]).mean() for c in range(10)])
    assert right > 0.9  # popularity would have .1
    late = results[-len(results) // 4 :]
    # of 100 items, 10 are right: whoever knows the class finds the next one in 20 always, popularity in a fifth
    assert sum(r.ranked.hits for r in late) / sum(r.ranked.n for r in late) > 0.9


def test_a_duplicate_changes_nothing_but_the_step(form: Form) -> None:
    events = clicks([("u", "a"), ("u", "b")])
    learner = Learner(form())
    learner.learn(micro_batch(events, keys=[1, 2]))
    before = learner.snapshot()
    late = dataclasses.replace(micro_batch(events, keys=[1, 2]), ts=np.full(2, 86_400_000))
    result = learner.learn(late)
    after = learner.snapshot()
    assert result.taught.loss is None
    assert (result.n_events, result.duplicates) == (0, 2)
    for name in after.tensors.keys() - {"trainer/steps"}:
        assert before.tensors[name].tobytes() == after.tensors[name].tobytes(), name
    for name, rows in after.tables.items():
        # negatives are drawn by step, and an item that is named anew is kept for longer
        if not name.startswith(("trainer/negatives/", "trainer/item/last_used")):
            assert np.array_equal(np.asarray(rows.values), np.asarray(before.tables[name].values)), name


def test_the_history_of_an_event_is_what_its_user_did_before_it() -> None:
    learner = Learner(SMALL)
    learner.learn(micro_batch(clicks([("u", "a"), ("v", "b"), ("u", "c")])))
    learner.learn(micro_batch(clicks([("u", "d"), ("v", "e"), ("u", "a")]), first_key=10))
    rows = dict(zip("abcde", learner.recommender.rows_of(list("abcde")).tolist(), strict=True))
    kept = [
        ([rows[i] for i in "a"], rows["c"]),
        ([rows[i] for i in "ac"], rows["d"]),
        ([rows[i] for i in "b"], rows["e"]),
        ([rows[i] for i in "acd"], rows["a"]),
    ]
    history = network_of(learner).exemplars.history.array[: network_of(learner).exemplars.written]
    target = network_of(learner).exemplars.target.array[: network_of(learner).exemplars.written]
    assert [(h[h >= 0].tolist(), t) for h, t in zip(history, target.tolist(), strict=True)] == kept


def test_dislikes_and_searches_are_counted_and_neither_targets_nor_history(form: Form) -> None:
    learner = Learner(form())
    result = learner.learn(micro_batch([("u", "a", "dislike"), ("u", None, "search"), ("u", "b", "dislike")]))
    assert result.n_events == 3
    assert result.taught.loss is None
    assert learner.clock == 3
    assert (learner.users.history.array[: learner.users.history.size] == -1).all()
    counts = popularity_of(learner).table.data[: learner.recommender.size]
    assert torch.isneginf(counts).all()
    assert learner.recommender.rows_of(["a", "b"]).min() >= 0  # an accepted event makes its item listable


def test_with_a_rating_scale_a_low_rating_is_no_target_and_a_high_one_weighs_more(
    form: Form,
) -> None:
    values = {"bad": 1.0, "fair": 3.0, "good": 5.0, "bare": math.nan}
    batch = micro_batch([(f"u{n}", item, "rating") for n, item in enumerate(values)])
    batch = dataclasses.replace(batch, value=np.array(list(values.values())))
    counts = {}
    for scale in (None, (1.0, 5.0)):
        learner = Learner(form(rating_scale=scale))
        assert learner.learn(batch).n_events == 4
        rows = torch.from_numpy(learner.recommender.rows_of(list(values)))
        counts[scale] = popularity_of(learner).log_counts(0, rows)[:, -1].exp().tolist()
        assert learner.users.counts.array[:4, 1].tolist() == [scale is None, 1, 1, 1]
    assert counts[None] == pytest.approx([1, 1, 1, 1], rel=0.1)
    assert counts[1.0, 5.0] == pytest.approx([0, 0.25, 1, 1], rel=0.1)


def test_a_batch_may_hold_a_catalogue_alone(form: Form) -> None:
    learner = Learner(form())
    result = learner.learn(micro_batch([], catalogue=[ItemChange("a"), ItemChange("b", available=False)]))
    assert result.n_events == 0
    assert [learner.recommender.ids[r] for r in learner.recommender.top_k(np.array([[-1]]), 5)[0][0] if r >= 0] == ["a"]
    learner.learn(micro_batch([], catalogue=[ItemChange("a", deleted=True), ItemChange("b")]))
    assert [learner.recommender.ids[r] for r in learner.recommender.top_k(np.array([[-1]]), 5)[0][0] if r >= 0] == ["b"]
    # an event does not bring a deleted item back
    learner.learn(micro_batch(clicks([("u", "a")])))
    assert [learner.recommender.ids[r] for r in learner.recommender.top_k(np.array([[-1]]), 5)[0][0] if r >= 0] == ["b"]
    assert learner.learn(micro_batch([])).n_events == 0


def test_when_items_are_full_the_ones_unused_longest_make_room_and_nothing_refers_to_them() -> None:
    config = small(max_items=64)
    learner = Learner(config)
    for batch in in_batches(clicks([(f"u{n % 7}", f"i{n}") for n in range(60)]), 20):
        learner.learn(batch)
    learner.learn(micro_batch(clicks([("u0", f"i{n}") for n in range(55)]), first_key=100))  # i55.. are the oldest now
    learner.learn(micro_batch(clicks([("u1", f"n{n}") for n in range(6)]), first_key=200))
    rows = learner.recommender.rows_of([f"i{n}" for n in range(60)])
    assert (rows[:55] >= 0).all()
    assert (rows[55:] < 0).sum() == 4
    used = [item for item in learner.recommender.ids if item]
    assert len(set(used)) == len(used) <= 64
    assert learner.recommender.size <= 64
    for batch in in_batches(random_events(3000, seed=5, items=400), 30):
        learner.learn(batch)
        ids = learner.recommender.ids
        network = network_of(learner)
        for table in (
            learner.users.history,
            network.exemplars.history,
            network.exemplars.target,
            network.negatives.rows,
        ):
            held = np.unique(table.array[: table.size])
            assert all(ids[row] for row in held[held >= 0].tolist())
        lists, _ = learner.recommender.top_k(np.full((1, 5), -1), 64)
        assert all(ids[row] for row in lists[lists >= 0].tolist())
    assert learner.recommender.size <= 64


def test_a_version_of_a_release_that_knew_no_unlisted_items_goes_on(form: Form) -> None:
    learner = Learner(form())
    learner.learn(micro_batch(clicks([("u", "a"), ("u", "b")])))
    full = learner.snapshot()
    earlier = {name: rows for name, rows in full.tables.items() if not name.startswith("trainer/unlisted/")}
    assert len(earlier) == len(full.tables) - 2
    again = Learner.restore(form(), state_of(Update(True, earlier, full.tensors)))
    assert_same(again.snapshot(), full)


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({}, []),
        ({"max_items": 6, "max_users": 3}, []),
        ({"max_items": 5}, [("max_items", 5, 6)]),
        ({"max_users": 2}, [("max_users", 2, 3)]),
        ({"max_items": 1, "max_users": 1}, [("max_items", 1, 6), ("max_users", 1, 3)]),
    ],
)
def test_a_limit_below_one_batch_is_exceeded_for_it_and_told(
    form: Form, limits: dict[str, Any], told: list[tuple[str, int, int]]
) -> None:
    """Every event of the batch is learned from, as without the limit."""
    batch = micro_batch(clicks([(f"u{n % 3}", f"i{n}") for n in range(6)]))
    learner, unlimited = Learner(form(**limits)), Learner(form())
    assert learner.learn(batch) == unlimited.learn(batch)
    assert_same(learner.snapshot(), unlimited.snapshot())
    assert learner.beyond_limits() == told


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_gradient_that_is_not_finite_never_reaches_the_weights() -> None:
    learner = Learner(SMALL)
    batches = list(in_batches(random_events(400, seed=2), 80))
    for batch in batches[:3]:
        learner.learn(batch)
    good = state_of(learner.snapshot())
    network_of(learner).dense["out_bias"][0] = float("nan")
    before = learner.snapshot()
    clock, steps = learner.clock, network_of(learner).optimizer.steps
    result = learner.learn(batches[3])
    after = learner.snapshot()
    assert result.taught.skipped
    assert result.taught.loss is None
    for name in ("item/row", "trainer/item/adagrad"):
        old = np.asarray(before.tables[name].values)
        assert np.asarray(after.tables[name].values)[: len(old)].tobytes() == old.tobytes()
    assert np.isfinite(np.asarray(after.tables["item/row"].values)).all()
    for name in before.tensors:
        if name.startswith(("network/", "blend/", "trainer/network", "trainer/blend")):
            assert before.tensors[name].tobytes() == after.tensors[name].tobytes(), name
    assert learner.clock == clock + result.n_events > clock
    assert network_of(learner).optimizer.steps == steps
    learner.reset_weights(good)
    assert_same_weights(learner, good)
    healed = learner.learn(batches[4])
    assert not healed.taught.skipped
    assert healed.taught.loss is not None


def assert_same_weights(learner: Learner, state: State) -> None:
    now = learner.snapshot()
    for name in ("item/row", "trainer/item/adagrad"):
        old = np.asarray(state.table(name))
        assert np.array_equal(np.asarray(now.tables[name].values)[: len(old)], old)
    for name in now.tensors:
        if name.startswith(("network/", "blend/", "trainer/network", "trainer/blend")):
            assert np.array_equal(now.tensors[name], state.tensor(name)), name


def test_after_a_reset_a_restored_learner_still_goes_on_bit_for_bit(form: Form) -> None:
    learner = Learner(form())
    state = state_of(learner.snapshot())
    learner.drain()
    good = state_of(learner.snapshot())
    for n, batch in enumerate(in_batches(random_events(600, seed=4), 60)):
        if n == 5:
            learner.reset_weights(good)
        learner.learn(batch)
        state.apply(learner.drain())
    assert_same(learner.snapshot(), state.snapshot())


def test_a_drain_gives_only_what_was_touched(form: Form) -> None:
    learner = Learner(form())
    for batch in in_batches(random_events(600, seed=1), 100):
        learner.learn(batch)
    learner.drain()
    assert all(len(rows.index) == 0 for rows in learner.drain().tables.values())
    learner.learn(micro_batch(clicks([("u1", "i1")]), first_key=10_000), Effort(0))
    delta = learner.drain()
    assert len(delta.tables["trainer/user/count"].index) == 1
    assert len(delta.tables["trainer/user/event_key"].index) == 1
    assert len(delta.tables["trainer/user/history"].index) == 1
    assert len(delta.tables["item/popularity"].index) == 1
    assert len(delta.tables["item/id"].index) == 0


def test_ranking_counts_those_whose_user_and_item_were_known(form: Form) -> None:
    learner = Learner(form(), evaluate_sample=None)
    # u and a are new; a again is known though in the same batch; b is new; v is new
    result = learner.learn(micro_batch(clicks([("u", "a"), ("u", "a"), ("u", "b"), ("v", "a")])))
    assert result.ranked.n == 1
    result = learner.learn(micro_batch(clicks([("v", "b"), ("w", "b"), ("w", "new")]), first_key=10))
    assert result.ranked.n == 1
    assert result.ranked.hits == 1  # there are but three items


@pytest.mark.parametrize(("sample", "ranked"), [(4, 4), (0, 0), (None, 40)])
def test_a_sample_of_each_batch_is_ranked(sample: int | None, ranked: int) -> None:
    learner = Learner(SMALL, evaluate_sample=sample)
    events = clicks([(f"u{n}", f"i{n}") for n in range(40)])
    assert learner.learn(micro_batch(events)).ranked.n == 0
    assert [learner.learn(micro_batch(events, first_key=100 * n)).ranked.n for n in (1, 2, 3)] == [ranked] * 3


def test_ranking_has_no_part_in_learning(form: Form) -> None:
    left, right = Learner(form()), Learner(form(), evaluate_sample=None)
    for batch in in_batches(random_events(300, seed=1), 64):
        left.learn(batch)
        right.learn(batch)
    assert_same(left.snapshot(), right.snapshot())


def test_a_state_of_another_shape_is_refused() -> None:
    learner = Learner(SMALL)
    learner.learn(micro_batch(random_events(50, seed=1)))
    state = state_of(learner.snapshot())
    with pytest.raises(ValueError, match="the configuration says"):
        Learner.restore(small(dim=16), state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_learns_what_the_cpu_learns_and_twice_the_same() -> None:
    learners = [Learner(SMALL, device) for device in ("cpu", "cuda", "cuda")]
    for batch in in_batches(random_events(600, seed=1), 64):
        cpu, left, right = (learner.learn(batch) for learner in learners)
        assert left == right
        assert cpu.taught.loss is None or left.taught.loss == pytest.approx(cpu.taught.loss, rel=1e-2)
    assert_same(learners[1].snapshot(), learners[2].snapshot())
