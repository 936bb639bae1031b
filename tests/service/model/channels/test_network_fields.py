"""What the fields of the network's configuration, and a lesson's share, change of what it learns and proposes."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from service.model.channel import Examples, Lesson
from service.model.channels.learning_network import LearningNetwork
from service.model.channels.network import Network, NetworkConfig
from service.model.contexts import Contexts
from service.model.recommender import Recommender
from service.model.registry import readers
from service.training.effort import Effort
from service.training.learner import Learner
from tests.service.model.configs import network_of, small
from tests.service.training.streams import assert_same, micro_batch, random_events, state_of

ENCODERS = ("decay", "gru", "transformer")


def learned(*, share: float = 1.0, replay: int = 1, batches: int = 4, **fields: Any) -> Learner:
    learner = Learner(small(**fields))
    for n in range(batches):
        learner.learn(micro_batch(random_events(150, seed=n), first_key=1 + 150 * n), Effort(replay, network=share))
    return learner


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_same_batches_give_the_same_bits_also_after_a_restart(encoder: str) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one, other = (learned(encoder=encoder, dislikes=0.3) for _ in range(2))
        assert_same(one.snapshot(), other.snapshot())
        again = Learner.restore(one.config, state_of(one.snapshot()))
        for learner in (one, again):
            learner.learn(micro_batch(random_events(150, seed=9), first_key=9_000))
        assert_same(one.snapshot(), again.snapshot())
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_steps_lower_the_loss(encoder: str) -> None:
    learner = Learner(small(encoder=encoder))
    events = random_events(200, seed=0)
    losses = [learner.learn(micro_batch(events, first_key=1 + 200 * n)).taught.loss for n in range(25)]
    assert np.mean([x for x in losses[-3:] if x]) < 0.9 * np.mean([x for x in losses[1:4] if x])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_reader_computes_the_trainer_s_directions(encoder: str) -> None:
    learner = learned(encoder=encoder)
    (reader,) = [channel for channel in readers(learner.config, "cpu") if isinstance(channel, Network)]
    reader.apply(learner.snapshot())
    contexts = Contexts.of(np.array([[1, 2, 3, 4, 5], [-1, -1, -1, -1, 7], [-1] * 5]))
    assert torch.equal(reader._directions(contexts), network_of(learner)._directions(contexts))


def test_a_manifest_without_the_new_fields_says_what_earlier_releases_did() -> None:
    config = NetworkConfig.model_validate({"dim": 32})
    assert (config.encoder, config.history, config.exact_up_to) == ("decay", 0, 200_000)


def test_heads_divide_the_row() -> None:
    with pytest.raises(ValidationError, match="8 cannot be parted into 3 heads"):
        NetworkConfig(dim=8, heads=3, encoder="transformer")


# -- history ----------------------------------------------------------------------------------------------------------


def test_older_places_of_a_history_count_for_nothing() -> None:
    learner = learned(history=2)
    network = network_of(learner)
    assert network.exemplars.history.shape == (2,)
    full = np.array([[9, 8, 7, 3, 4], [-1, -1, -1, -1, 4], [5, -1, -1, -1, -1]])
    cut = np.where(np.arange(5) < 3, -1, full)
    assert torch.equal(network._directions(Contexts.of(full)), network._directions(Contexts.of(cut)))
    model = learner.recommender
    both = [network.look(model.query(histories)).candidates for histories in (full, cut)]
    assert np.array_equal(both[0], both[1])
    assert (both[0][2] == -1).all()


def test_a_history_longer_than_the_model_s_is_the_model_s() -> None:
    assert_same(learned(history=50).snapshot(), learned(history=0).snapshot())


def test_the_latest_places_of_contexts() -> None:
    histories = np.random.default_rng(0).integers(-1, 6, (20, 7))
    got, wanted = Contexts.of(histories).latest(3), Contexts.of(histories[:, -3:])
    for name in ("n", "length", "rows", "lag", "owner", "offsets", "newest"):
        assert np.array_equal(getattr(got, name), getattr(wanted, name)), name


# -- share ------------------------------------------------------------------------------------------------------------


def lesson_of(learner: Learner, share: float, n: int) -> Lesson:
    rng = np.random.default_rng(0)
    item = rng.integers(0, learner.items.size, n)
    history = rng.integers(0, learner.items.size, (n, 5)).astype(np.int32)
    examples = Examples(item, np.arange(n), np.zeros(n), np.ones(n), history)
    model = learner.recommender
    return Lesson(7, model.clock, 0, 1, examples, Examples.none(5), model.blend, model.common, share)


@torch.no_grad()
@pytest.mark.parametrize(("share", "fresh"), [(1.0, 40), (0.5, 20), (0.125, 5), (0.01, 1), (0.0, 0)])
def test_the_network_learns_from_a_share_of_the_events(share: float, fresh: int) -> None:
    network = network_of(learner := learned())
    written = network.exemplars.written
    taught = network.learn(lesson_of(learner, share, 40))
    assert taught.fresh == fresh
    assert network.exemplars.written == written + fresh
    assert taught.replayed <= fresh


@torch.no_grad()
def test_the_share_is_drawn_from_the_lesson_alone() -> None:
    one, other = (learned(share=0.5) for _ in range(2))
    assert_same(one.snapshot(), other.snapshot())
    drawn = [network_of(each)._step(lesson_of(each, 0.5, 40), np.random.default_rng(3)) for each in (one, other)]
    assert np.array_equal(drawn[0].target, drawn[1].target)


@torch.no_grad()
def test_the_whole_share_draws_no_number() -> None:
    """So a model of an earlier release goes on bit for bit."""
    network = network_of(learner := learned(replay=0))
    lesson, random = lesson_of(learner, 1.0, 40), np.random.default_rng(3)
    network._step(lesson, random)
    without = np.random.default_rng(3)
    network.exemplars.draw(40, without, recent=50, recent_share=0.7, dropout=0.15)
    assert random.bit_generator.state == without.bit_generator.state


# -- index ------------------------------------------------------------------------------------------------------------


def test_beyond_the_limit_a_reader_searches_and_a_trainer_proposes_nothing() -> None:
    pytest.importorskip("usearch")
    learner = learned(exact_up_to=20, candidates=5)
    exact = learned(candidates=5)
    model, network = learner.recommender, network_of(learner)
    assert learner.items.size > 20
    query = model.query(np.array([[1, 2, 3, 4, 5], [-1, -1, -1, 6, 7]]))
    assert (network.look(query).candidates == -1).all()
    networks: list[Network] = []
    for trainer in (learner, exact):
        reader = Recommender(trainer.config)
        reader.apply(trainer.snapshot())
        networks += [channel for channel in reader.channels if isinstance(channel, Network)]
    searching, comparing = networks
    assert searching.retrieval.filled
    wanted = comparing.look(query).candidates
    assert np.array_equal(searching.look(query).candidates, wanted)
    rows, offsets = wanted[:, :3].reshape(-1), np.array([0, 3, 6])
    described = [np.empty((6, 2), np.float32) for _ in networks]
    for each, out in zip(networks, described, strict=True):
        each.look(query).describe(rows, offsets, out)
    assert np.array_equal(described[0][:, 0], described[1][:, 0])
    assert described[1][:, 1].all()
    assert not described[0][:, 1].any(), "a place that the trainer never shows the ranker"
    gone = wanted[:, 0].astype(np.int64)
    searching.forget(np.unique(gone))
    assert not np.isin(searching.look(query).candidates, gone).any()


def test_a_reference_beside_a_trainer_proposes_as_the_trainer_does() -> None:
    learner = learned(exact_up_to=20)
    reference = Recommender(learner.config)
    reference.share(learner.recommender)
    (network,) = [channel for channel in reference.channels if isinstance(channel, Network)]
    assert not isinstance(network, LearningNetwork)
    network.apply(learner.snapshot())
    query = learner.recommender.query(np.array([[1, 2, 3, 4, 5]]))
    assert (network.look(query).candidates == -1).all()
