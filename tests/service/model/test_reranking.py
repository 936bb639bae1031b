"""Lists by candidates: what is kept and ordered again, what goes with an item, and how targets are judged."""

import numpy as np
import pytest

from consumers.micro_batch import ItemChange
from model_store.errors import InvalidUpdate
from model_store.weights import Update
from service.model.candidates import FILLED, HISTORY
from service.model.floor import RANKER
from service.model.query import NOT_KNOWN
from service.model.recommender import LISTS_AT_ONCE, Recommender
from service.model.reranking import NOT_LISTED, Reranking
from service.training.learner import Learner
from tests.service.model.configs import ranked
from tests.service.training.streams import clicks, in_batches, micro_batch, random_events

CONFIG = ranked()
K = 10


def learned(n: int = 1_000) -> Learner:
    learner = Learner(CONFIG)
    for batch in in_batches(random_events(n, 4), 100):
        learner.learn(batch)
    return learner


def reranking_of(model: Recommender) -> Reranking:
    assert model.reranking is not None
    return model.reranking


def histories(model: Recommender, n: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(-1, model.size, (n, 5))


@pytest.mark.parametrize("serves", [RANKER, 0, 1])
def test_kept_candidates_make_the_list_they_were_kept_of(serves: int) -> None:
    """Bit for bit, while neither the model nor the time has changed."""
    model = learned().recommender
    reranking_of(model).serves = serves
    given = histories(model)
    last = np.where(np.arange(len(given)) % 3 == 0, NOT_KNOWN, model.now - np.arange(len(given)))
    made = model.lists(given, K, last=last, keep=2 * K)
    assert all(K <= len(kept.rows) <= 2 * K for kept in made.kept)
    again = model.lists_again(made.kept, K, last=last)
    assert again.rows.tobytes() == made.rows.tobytes()
    assert again.scores.tobytes() == made.scores.tobytes()


def test_of_kept_candidates_none_is_listed_that_may_not_be_any_more() -> None:
    model = learned().recommender
    given = histories(model)
    made = model.lists(given, K, keep=2 * K)
    exclude = np.zeros(model.size, np.bool_)
    exclude[made.rows[:, 0]] = True
    again = model.lists_again(made.kept, K, exclude=exclude)
    popular = model.channels[1].look(model.query(given, exclude=exclude)).candidates[0].tolist()
    assert not exclude[again.rows[again.rows >= 0]].any()
    for before, after in zip(made.kept, again.rows, strict=True):
        assert set(after[after >= 0].tolist()) <= {*before.rows.tolist(), *popular}


def test_counts_and_time_of_kept_candidates_are_those_of_now() -> None:
    learner = learned()
    model = learner.recommender
    given = histories(model)
    made = model.lists(given, K, keep=2 * K)
    pairs = reranking_of(model).features
    of_counts = [n for n, name in enumerate(pairs.names) if name.startswith("popularity")]
    before = made.kept[0].x[:, of_counts].copy()
    (item,) = made.kept[0].rows[:1]
    learner.learn(micro_batch(clicks([(f"new{n}", model.ids[item]) for n in range(50)]), first_key=5_000))
    again = model.lists_again(made.kept, K)
    fresh = model.lists(given, K, keep=2 * K)
    assert (made.kept[0].x[:, of_counts] == before).all()  # what is kept is not written over
    assert again.scores.tobytes() != made.scores.tobytes()
    assert np.isfinite(fresh.scores).all()


@pytest.mark.parametrize("held", [False, True])
def test_what_has_become_popular_since_joins_the_kept_candidates(held: bool) -> None:
    """With the features that it has when candidates are looked for, but for the second step of the neighbours."""
    learner = learned()
    learner.learn(micro_batch(clicks([("u", "rising")]), first_key=4_000))
    model, (rising,) = learner.recommender, learner.recommender.rows_of(["rising"]).tolist()
    given = histories(model)
    given[given == rising] = 0
    if held:
        given[:, 1] = rising
    shut = np.zeros(model.size, np.bool_)
    shut[rising] = True
    made = model.lists(given, K, keep=2 * K, exclude=shut)  # as if it had not been there
    learner.learn(micro_batch(clicks([(f"new{n}", "rising") for n in range(90)]), first_key=5_000))
    reranking = reranking_of(model)
    seen: list[np.ndarray] = []
    reranking.scores = lambda x: seen.append(x) or x[:, reranking.features.column("popularity.count_50")]  # type: ignore
    again, fresh = model.lists_again(made.kept, K), model.lists(given, K)
    assert (again.rows[:, 0] == rising).all()
    assert (fresh.rows[:, 0] == rising).all()
    query, names = model.query(given), reranking.features.names
    pairs = reranking.describe(query)
    not_looked_for = {names.index(f"neighbours.{name}") for name in ("rank", "second_rank", "best_share")}
    same = [n for n in range(len(names)) if n not in not_looked_for and " x " not in names[n]]
    of_rising = pairs.x[pairs.pairs.rows == rising][:, same]
    column = reranking.features.column("popularity.count_50")
    joined = seen[0][seen[0][:, column] == seen[0][:, column].max()][:, same]
    np.testing.assert_allclose(joined, of_rising, rtol=1e-5, atol=1e-6)
    assert (of_rising[:, same.index(names.index("history.held"))] == held).all()
    for before, after in zip(made.kept, again.kept, strict=True):  # and then it is kept with them
        assert after.rows.tolist()[: len(before.rows)] == before.rows.tolist()
        assert rising in after.rows
        assert after.x.shape == (len(after.rows), len(names))
    once_more = model.lists_again(again.kept, K)
    np.testing.assert_array_equal(once_more.rows, again.rows)
    np.testing.assert_allclose(once_more.scores, again.scores, rtol=1e-6)
    assert all(now is before for now, before in zip(once_more.kept, again.kept, strict=True))


def test_what_is_hidden_from_a_user_does_not_join_either() -> None:
    learner = learned()
    model = learner.recommender
    given = histories(model)
    (popular,) = np.unique(model.lists(np.full((1, 1), -1), 1).rows)
    made = model.lists(given, K, keep=K, hide=np.full((len(given), 1), popular))
    assert not (made.rows == popular).any()
    assert not (model.lists_again(made.kept, K).rows == popular).any()


def test_candidates_kept_from_another_model_are_not_ordered_again() -> None:
    learner = learned()
    reader = Recommender(CONFIG)
    reader.apply(learner.snapshot())
    (kept,) = reader.lists(histories(reader)[:1], K, keep=K).kept
    assert reader.keeps(kept)
    assert not learner.recommender.keeps(kept)
    reader.apply(learner.drain())
    assert reader.keeps(kept)
    reader.apply(learner.snapshot())  # its rows may be of other items
    assert not reader.keeps(kept)


def test_a_model_without_anything_lists_nothing() -> None:
    model = Recommender(CONFIG)
    lists = model.lists(np.full((3, 2), -1), K, keep=K)
    assert (lists.rows == -1).all()
    rows, scores = model.related(np.empty(0, np.int64), K)
    assert rows.shape == scores.shape == (0, K)


def test_what_goes_with_an_item_are_its_neighbours_best_first_and_never_itself() -> None:
    learner = Learner(CONFIG)
    for n in range(6):  # b comes after a always, and c at times; d goes with nothing
        events = [("a", "b", "c") if n % 3 == 0 else ("a", "b")][0]
        learner.learn(micro_batch(clicks([(f"u{n}", item) for item in events]), first_key=1 + 10 * n))
    learner.learn(micro_batch(clicks([("x", "d")]), first_key=900, catalogue=[ItemChange("e")]))
    model = learner.recommender
    a, b, c, d, e = model.rows_of(list("abcde")).tolist()
    rows, scores = model.related(np.array([a, c, d, e]), 3)
    assert rows.tolist() == [[b, c, -1], [b, a, -1], [-1] * 3, [-1] * 3]
    assert (np.diff(scores[0][:2]) < 0).all()
    assert (scores[rows == -1] == 0).all()
    shut = np.zeros(model.size, np.bool_)
    shut[b] = True
    assert model.related(np.array([a]), 3, exclude=shut)[0].tolist() == [[c, -1, -1]]


@pytest.mark.parametrize("serves", [RANKER, 0, 1])
def test_targets_are_judged_by_the_list_that_is_served(serves: int) -> None:
    model = learned().recommender
    reranking = reranking_of(model)
    reranking.serves = serves
    given, target = histories(model), np.arange(12) * 3 % model.size
    judged = reranking.judge(model.query(given), target)
    rows, _ = model.top_k(given, 300)
    for b, ahead in enumerate(judged.ahead.tolist()):
        listed = rows[b][rows[b] >= 0].tolist()
        assert ahead == (listed.index(target[b]) if target[b] in listed else NOT_LISTED)
    assert set(judged.origin) <= {"neighbours", "popularity", HISTORY, FILLED, ""}
    assert [origin == "" for origin in judged.origin] == (judged.by_ranker == NOT_LISTED).tolist()
    assert judged.simple.keys() == {order.name for order in reranking.orders}


def test_it_makes_no_difference_in_what_groups_lists_are_asked_for() -> None:
    model = learned().recommender
    given = histories(model, 2 * LISTS_AT_ONCE + 3)
    rows, scores = model.top_k(given, K)
    for size in (1, 7, LISTS_AT_ONCE):
        parts = [model.top_k(given[at : at + size], K) for at in range(0, len(given), size)]
        assert np.concatenate([part[0] for part in parts]).tobytes() == rows.tobytes()
        assert np.concatenate([part[1] for part in parts]).tobytes() == scores.tobytes()


def test_a_user_at_rest_is_as_old_as_their_last_event_and_never_younger() -> None:
    model = learned().recommender
    given = histories(model, 3)
    last = np.array([model.now - 60, model.now + 60, NOT_KNOWN])
    query = model.query_at_rest(given, last, None)
    assert query.idle.tolist() == pytest.approx([60, 0, NOT_KNOWN], abs=1e-3)
    assert query.now.tolist() == [model.now, model.now + 60, model.now]


def test_a_list_is_for_a_reader_who_comes_some_time_after_the_last_event() -> None:
    model = learned().recommender
    last = np.array([model.now - 60, model.now - 5, model.now + 60, NOT_KNOWN])
    query = model.query_at_rest(histories(model, 4), last, None, after=20)
    assert query.idle.tolist() == pytest.approx([60, 20, 20, NOT_KNOWN], abs=1e-3)
    assert query.now.tolist() == [model.now, model.now + 15, model.now + 80, model.now]


def test_weights_for_other_features_are_refused_before_anything_has_changed() -> None:
    learner = learned(300)
    reader = Recommender(CONFIG)
    reader.apply(learner.snapshot())
    before = reader.top_k(histories(reader), K)
    learner.learn(micro_batch(random_events(100, 9), first_key=5_000))
    full = learner.snapshot()
    digest = full.tensors["ranker/features"].copy()
    digest[0] ^= 1
    for kind in (True, False):
        with pytest.raises(InvalidUpdate, match="ranker/features"):
            reader.apply(Update(kind, full.tables, {**full.tensors, "ranker/features": digest}))
    after = reader.top_k(histories(reader), K)
    assert (before[0].tobytes(), before[1].tobytes()) == (after[0].tobytes(), after[1].tobytes())
