"""The laws of a channel, over every channel of the registry and one that a test adds.

Each is looked at in a small model of its own: with the channels it learns beside, and nothing else.
"""

import dataclasses
import math
from collections.abc import Iterator
from copy import deepcopy

import numpy as np
import pytest
import torch

from consumers.micro_batch import ItemChange, MicroBatch
from model_store.codec import decode, encode
from model_store.weights import State, Update
from service.model import registry
from service.model.channel import BlendedChannel, Channel, Examples
from service.model.channels.neighbours import Neighbours
from service.model.config import ModelConfig
from service.model.contexts import BUCKETS, Contexts
from service.model.query import Pairs, Query
from service.model.recommender import Recommender
from service.training.effort import FULL
from service.training.evaluation.measures import PairedSums
from service.training.evaluation.prequential import Examined, lesson_of
from service.training.evaluation.ranked import Ranked
from service.training.learner import Learner
from service.training.reference import Reference
from tests.service.model import trial_channel
from tests.service.model.configs import ranked, small
from tests.service.training.streams import assert_same, in_batches, random_events, state_of

BESIDE = {
    "neighbours": (),
    "popularity": (),
    "network": ("popularity",),
    "category": ("neighbours", "popularity"),
}
"""Channel -> the channels it is looked at beside, in a model with a ranker."""
BLENDED = ("popularity", "network")
"""The channels of models without a ranker, each looked at beside those before it."""
LENGTH = 5


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "KINDS", registry.KINDS | {"category": trial_channel.KIND})


def test_no_channel_is_without_its_laws() -> None:
    assert BESIDE.keys() == registry.KINDS.keys()


def config_with(names: tuple[str, ...], **limits: int) -> ModelConfig:
    """With a ranker."""
    config = ranked(network=True, **limits)
    sections = {name: config.channels.get(name, registry.KINDS[name].section()) for name in registry.KINDS}
    return dataclasses.replace(config, channels={n: section for n, section in sections.items() if n in names})


@pytest.fixture(params=BESIDE)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def config_of(name: str, **limits: int) -> ModelConfig:
    return config_with((*BESIDE[name], name), **limits)


def stream(n: int = 12, seed: int = 1, items: int = 60) -> Iterator[MicroBatch]:
    """Events, and a catalogue that says more of the items from time to time."""
    rng = np.random.default_rng(seed)
    for batch in in_batches(random_events(50 * n, seed, items=items), 50):
        said = [ItemChange(f"i{k}", category=f"c{k % 4}", available=k % 9 > 0) for k in rng.integers(items, size=5)]
        yield dataclasses.replace(batch, catalogue=tuple(said))


def trained(config: ModelConfig, n: int = 12, items: int = 60) -> Learner:
    learner = Learner(config)
    for batch in stream(n, items=items):
        learner.learn(batch)
    return learner


def channel_of(model: Recommender, name: str) -> Channel:
    (found,) = [channel for channel in model.channels if channel.name == name]
    return found


def histories(size: int, n: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(-1, size, (n, LENGTH))


def query_of(model: Recommender, given: np.ndarray) -> Query:
    rng = np.random.default_rng(1)
    return model.query(given, now=np.full(len(given), 50.0), idle=rng.integers(-1, 9, len(given)).astype(np.float32))


def every_pair(model: Recommender, query: Query) -> Pairs:
    rows = np.tile(np.arange(model.size, dtype=np.int32), query.n)
    return Pairs(rows, np.arange(query.n + 1) * model.size, np.zeros(len(rows), np.uint8))


def described(model: Recommender, name: str, query: Query, pairs: Pairs) -> np.ndarray:
    """[P, F] what a channel says of pairs."""
    channel = channel_of(model, name)
    x = np.full((len(pairs.rows), len(channel.feature_names)), np.nan, np.float32)
    channel.look(query).describe(pairs.rows, pairs.offsets, x)
    return x


def known(model: Recommender, name: str) -> bytes:
    """All that a channel says: its features of every pair, and what it proposes."""
    query = query_of(model, histories(model.size))
    candidates = channel_of(model, name).look(query).candidates.tobytes()
    return described(model, name, query, every_pair(model, query)).tobytes() + candidates


def lists(model: Recommender) -> bytes:
    rows, scores = model.top_k(histories(model.size), 20)
    return rows.tobytes() + scores.tobytes()


def reader_of(config: ModelConfig, full: Update) -> Recommender:
    reader = Recommender(config)
    reader.apply(full)
    return reader


def sent(update: Update, config: ModelConfig) -> Update:
    """As it arrives at a reader, who is not given what is for trainers."""
    blobs = encode(update, logarithms=Recommender(config).traits.logarithms)
    return decode({name: data for name, data in blobs.items() if not name.startswith("trainer/")}, full=update.full)


# -- versions ----------------------------------------------------------------------------------------------------------


def test_restored_is_gone_on(name: str) -> None:
    config = config_of(name, max_items=40)
    unkilled, state = Learner(config), State()
    state.apply(unkilled.snapshot())
    unkilled.drain()
    for batch in stream():
        mortal = Learner.restore(config, state)
        assert unkilled.learn(batch) == mortal.learn(batch)
        delta = unkilled.drain()
        assert_same(delta, mortal.drain())
        state.apply(delta)
    assert_same(unkilled.snapshot(), state.snapshot())


def test_deltas_are_the_whole(name: str) -> None:
    config = config_of(name, max_items=40)
    learner = Learner(config)
    following = reader_of(config, sent(learner.snapshot(), config))
    learner.drain()
    for batch in stream():
        learner.learn(batch)
        following.apply(sent(learner.drain(), config))
        whole = reader_of(config, sent(learner.snapshot(), config))
        assert known(following, name) == known(whole, name) == known(learner.recommender, name)
    assert lists(following) == lists(whole) == lists(learner.recommender)


def test_a_reset_puts_back_what_is_learned_by_gradient_and_nothing_else(name: str) -> None:
    learner = trained(config_of(name))
    learned = learner.recommender.traits.learned
    good = state_of(learner.snapshot())
    for batch in stream(4, seed=2, items=80):
        learner.learn(batch)
    before = learner.snapshot()
    learner.reset_weights(good)
    after = learner.snapshot()
    size = good.tables["item/id"]
    for table in learned & after.tables.keys():
        assert np.array_equal(np.asarray(after.tables[table].values)[:size], np.asarray(good.table(table))), table
    for tensor in learned & after.tensors.keys():
        assert np.array_equal(after.tensors[tensor], good.tensor(tensor)), tensor
    for table in after.tables.keys() - learned:
        if not table.startswith("trainer/"):
            values, wanted = (np.asarray(each.tables[table].values) for each in (after, before))
            assert np.array_equal(values, wanted), table


def test_only_what_the_traits_name_changes_by_gradient(name: str) -> None:
    """The gate's reference relies on it: all else it takes from the learner."""
    learner = trained(config_of(name))
    model, reference = learner.recommender, Reference(learner.recommender)
    reference.apply(learner.snapshot())
    reference.begin_batch()
    assert model.reranking is not None
    query, item = query_of(model, histories(model.size, 20)), np.arange(20)
    judged = model.reranking.judge(query, item)
    assert np.array_equal(reference.judge(judged, query, item), judged.by_ranker)
    before = learner.snapshot()
    history = histories(learner.items.size, 20).astype(np.int32)
    examples = Examples(item, item, item.astype(np.float64), np.ones(20), history)
    lesson = lesson_of(judged.described, item, np.ones(20, np.bool_), np.zeros(20, np.bool_))
    ranked_ones = Examined(Ranked(), PairedSums(), [lesson])
    learner._teach(examples, Examples.none(LENGTH), FULL, ranked_ones)
    after = learner.snapshot()
    for table, rows in before.tables.items():
        if not reference.owns(table) and not table.startswith("trainer/"):
            assert np.array_equal(np.asarray(rows.values), np.asarray(after.tables[table].values)), table
    for tensor, values in before.tensors.items():
        if not reference.owns(tensor) and not tensor.startswith("trainer/"):
            assert np.array_equal(values, after.tensors[tensor]), tensor
    assert len(lesson.target)
    assert not np.array_equal(before.tensors["ranker/linear"], after.tensors["ranker/linear"])
    if name == "network":
        assert not np.array_equal(before.tensors["network/out_bias"], after.tensors["network/out_bias"])


def test_numbers_are_finite_but_for_logarithms(name: str) -> None:
    learner = trained(config_of(name))
    traits, full = learner.recommender.traits, learner.snapshot()
    for table, rows in full.tables.items():
        if isinstance(rows.values, list) or table.startswith("trainer/"):
            continue
        values = np.asarray(rows.values, np.float64)
        assert np.isfinite(values).all() or (table in traits.logarithms and (values < math.inf).all()), table
    for tensor, entries in full.tensors.items():
        assert tensor.startswith("trainer/") or np.isfinite(np.asarray(entries, np.float64)).all(), tensor


# -- items -------------------------------------------------------------------------------------------------------------


def test_what_is_forgotten_leaves_no_reference(name: str) -> None:
    """A row that goes to another item: nothing that is said of the new one comes from the old one."""
    learner, rows = trained(config_of(name)), np.array([3, 7, 20])
    virgin = Learner(config_of(name))
    virgin.items.add([learner.items.names.ids[row] for row in range(learner.items.size)], 0)
    virgin.recommender.resize(learner.items.size)
    learner._forget_items(rows)
    pairs = Pairs(rows.astype(np.int32), np.array([0, 3]), np.zeros(3, np.uint8))
    said = []
    for model in (learner.recommender, virgin.recommender):
        model.clock = learner.clock
        model.changed()
        said.append(described(model, name, query_of(model, np.full((1, LENGTH), -1)), pairs))
    assert np.array_equal(said[0], said[1])
    for channel in learner.channels:
        if isinstance(channel, Neighbours):
            slots = channel.neighbour_rows.item.array[: channel.neighbour_rows.item.size]
            assert not np.isin(slots, rows).any()


def test_a_copy_stands_alone(name: str) -> None:
    learner = trained(config_of(name))
    copy = deepcopy(learner.recommender)
    before = known(copy, name)
    for batch in stream(4, seed=3):
        learner.learn(batch)
    assert known(copy, name) == before
    assert known(learner.recommender, name) != before


def test_switched_off_it_leaves_no_trace_in_list_or_version(name: str) -> None:
    without = config_with(BESIDE[name] or tuple({"neighbours", "popularity"} - {name}))
    learner, other = trained(without), trained(without)
    assert lists(learner.recommender) == lists(other.recommender)
    with_it, full = trained(config_of(name)), learner.snapshot()
    own = channel_of(with_it.recommender, name)
    names = {table.name for table in own.tables} | set(own.tensors)
    assert names
    assert not names & {*full.tables, *full.tensors}
    assert f'"{name}"' not in str(without.to_json()["channels"])


# -- features ----------------------------------------------------------------------------------------------------------


def test_features_are_finite_and_those_of_a_pair_depend_on_no_other(name: str) -> None:
    model = trained(config_of(name)).recommender
    query = query_of(model, histories(model.size))
    everything = described(model, name, query, every_pair(model, query))
    assert np.isfinite(everything).all()
    if name == "network":  # its second feature is a place among what it proposes
        everything = everything[:, :1]
    for b in (0, 5, 17):
        some = np.array([4, model.size - 1, 9], np.int32)
        alone = query_of(model, histories(model.size))
        one = model.query(alone.histories[b : b + 1], now=alone.now[b : b + 1], idle=alone.idle[b : b + 1])
        pairs = Pairs(some, np.array([0, 3]), np.zeros(3, np.uint8))
        found = described(model, name, one, pairs)[:, : everything.shape[1]]
        wanted = everything[b * model.size + some]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 if name == "network" else 0)


def test_candidates_may_be_listed_each_once(name: str) -> None:
    model = trained(config_of(name)).recommender
    shut = np.zeros(model.size, np.bool_)
    shut[::3] = True
    found = channel_of(model, name).look(model.query(histories(model.size), exclude=shut)).candidates
    assert found.dtype == np.int32
    for of_one in found:
        real = of_one[of_one >= 0]
        assert len(set(real.tolist())) == len(real)
        assert (real < model.size).all()
    listed, _ = model.top_k(histories(model.size), 20, exclude=shut)
    assert not np.isin(listed[listed >= 0], np.flatnonzero(shut)).any()


def test_a_list_made_alone_is_the_list_made_among_others(name: str) -> None:
    """Bit for bit: so a scorer and a trainer, which ask in groups of other sizes, make the same list."""
    model = trained(config_of(name)).recommender
    given = histories(model.size, 70)
    rows, scores = model.top_k(given, 20)
    for b in (0, 1, 63, 64, 69):
        alone, values = model.top_k(given[b : b + 1], 20)
        if name == "network":  # whose products depend on how many there are
            np.testing.assert_allclose(values[0], scores[b], rtol=1e-4, atol=1e-5)
            continue
        assert np.array_equal(alone[0], rows[b])
        assert np.array_equal(values[0], scores[b])


def test_a_trial_channel_counts_in_lists_and_the_ranker_learns_how_much() -> None:
    """One file, one line, one section: nothing else knows of it."""
    learner = trained(config_of("category"))
    reranking = learner.recommender.reranking
    assert reranking is not None
    weight = reranking.ranker.weights["linear"][reranking.features.column("category.lately"), 0]
    assert float(weight) != 0.0
    assert lists(learner.recommender) != lists(trained(config_with(("neighbours", "popularity"))).recommender)
    assert registry.parse(learner.config.to_json()) == learner.config


# -- models without a ranker -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BLENDED)
def test_the_fast_path_over_all_items_is_the_score_of_each_pair(name: str) -> None:
    model = trained(small()).recommender
    channel = channel_of(model, name)
    assert isinstance(channel, BlendedChannel)
    contexts = Contexts.of(histories(model.size))
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(BUCKETS, channel.width, generator=generator)
    width = -(-model.size // 32) * 32
    common = torch.zeros(BUCKETS, width)
    channel.add_common(weights, model.clock, common, 0)
    bucket = torch.from_numpy(contexts.bucket)
    scores = common.index_select(0, bucket)
    if (add := channel.adder(contexts, weights.index_select(0, bucket))) is not None:
        assert channel.personal
        add(scores, 0)
    rows = torch.arange(model.size).expand(contexts.n, -1)
    pairs = channel.score(contexts, rows, model.clock)  # [B, C, F]
    assert pairs.shape == (contexts.n, model.size, channel.width)
    assert bool(torch.isfinite(pairs).all())
    wanted = (pairs * weights.index_select(0, bucket).unsqueeze(1)).sum(2)
    torch.testing.assert_close(scores[:, : model.size], wanted, rtol=1e-4, atol=1e-4)
    part = torch.zeros(BUCKETS, 32)
    channel.add_common(weights, model.clock, part, 32)  # a strip by itself
    torch.testing.assert_close(part[:, : model.size - 32], common[:, 32 : model.size][:, :32], rtol=1e-5, atol=1e-5)


def test_a_channel_that_the_blend_cannot_add_up_needs_a_ranker() -> None:
    config = dataclasses.replace(config_of("neighbours"), ranker=None)
    with pytest.raises(registry.UnknownConfig, match="neighbours needs a ranker"):
        Learner(config)
