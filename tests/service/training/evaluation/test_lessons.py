"""What the ranker is taught by the events of a batch: those with their target among the candidates, and of a purchase
also the first click before it."""

import dataclasses

import numpy as np
import pytest

from service.model.ranker import RankingLesson
from service.training.effort import FULL, Effort
from service.training.evaluation.prequential import Examined, choose, examine
from service.training.learner import Learner
from tests.service.model.configs import ranked
from tests.service.training.streams import Event, clicks, in_batches, micro_batch, random_events

CONFIG = ranked()


def learned() -> Learner:
    """Everybody goes from a to b, to c, and to d."""
    learner = Learner(CONFIG)
    events = clicks([(f"w{n}", item) for n in range(10) for item in "abcd"])
    for batch in in_batches(events, 8):
        learner.learn(batch)
    return learner


def examined(learner: Learner, events: list[Event], effort: Effort = FULL) -> Examined:
    """What the learner makes of a batch before it learns from it."""
    taken = learner._take_in(micro_batch(events, first_key=1_000))
    return learner._examine(taken, effort, None)


def said(lessons: list[RankingLesson]) -> list[tuple[float, float]]:
    """The weights of each example, for a click and for a purchase."""
    return [(float(click), float(bought)) for lesson in lessons for click, bought in lesson.weight]


@pytest.mark.parametrize(
    ("events", "weights"),
    [
        ([("u", "a", "click")], []),  # the user was not known before
        ([("u", "a", "click"), ("u", "b", "click")], [(1, 0)]),
        ([("u", "a", "click"), ("u", "b", "purchase")], [(1, 1)]),  # nothing led to it
        # the purchase itself, and the click that led to it, with the history as it was before that click
        ([("u", "a", "click"), ("u", "b", "click"), ("u", "b", "purchase")], [(1, 0), (1, 1), (0, 1)]),
        # its first click, though others came between
        (
            [("u", "a", "click"), ("u", "b", "click"), ("u", "c", "click"), ("u", "b", "purchase")],
            [(1, 0), (1, 0), (1, 1), (0, 1)],
        ),
    ],
)
def test_of_a_purchase_the_first_click_before_it_teaches_too(
    events: list[Event], weights: list[tuple[float, float]]
) -> None:
    assert said(examined(learned(), events).lessons) == weights


def test_a_credited_click_is_looked_at_with_the_history_before_it() -> None:
    learner = learned()
    click, credited = (
        examined(learned(), events).lessons[-1]
        for events in (
            clicks([("u", "a"), ("u", "b")]),
            [*clicks([("u", "a"), ("u", "b"), ("u", "c")]), ("u", "b", "purchase")],
        )
    )
    names = learner.recommender.reranking.features.names if learner.recommender.reranking else ()
    alike = [n for n, name in enumerate(names) if name.startswith(("neighbours", "history.held", "history.length"))]
    assert len(click.target) == len(credited.target) == 1
    mine, theirs = (lesson.x[lesson.target[0]][alike] for lesson in (click, credited))
    assert mine.tolist() == theirs.tolist()


def test_a_target_that_nobody_proposes_teaches_nothing() -> None:
    """Its rank counts nevertheless: lists missed it."""
    learner = learned()
    learner.learn(micro_batch(clicks([("x", f"rare{n}") for n in range(30)]), first_key=500))
    learner.learn(micro_batch(clicks([(f"w{n}", "a") for n in range(10)] * 20), first_key=600))
    found = examined(learner, clicks([("u", "a"), ("u", "rare3"), ("u", "b")]))
    assert len(found.ranked.ahead) == 2
    assert found.ranked.origin[0] == ""
    assert len(said(found.lessons)) == 1


@pytest.mark.parametrize(("share", "lessons"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.25), (0.5, 0.5)])
def test_fewer_events_teach_where_less_effort_is_made(share: float, lessons: float) -> None:
    assert CONFIG.ranker is not None
    learner = Learner(dataclasses.replace(CONFIG, ranker=CONFIG.ranker.model_copy(update={"share": share})))
    events = random_events(600, 3)
    for batch in in_batches(events[:400], 50):
        learner.learn(batch)
    taken = learner._take_in(micro_batch(events[400:], first_key=401))
    found = learner._examine(taken, Effort(lessons=lessons), None)
    eligible = len(choose(taken, None))
    assert 0 < len(found.by_ranker) <= np.ceil(share * lessons * len(taken.item))
    assert len(found.by_ranker) >= 0.8 * share * lessons * eligible


def test_what_is_measured_is_not_what_teaches_where_all_is_to_be_measured() -> None:
    few, every = (Learner(CONFIG, evaluate_sample=sample) for sample in (32, None))
    for batch in in_batches(random_events(600, 3), 50):
        less, more = few.learn(batch, Effort(lessons=0.25)), every.learn(batch, Effort(lessons=0.25))
        assert less.taught == more.taught
        assert less.ranked.n <= more.ranked.n
    assert few.recommender.tensors["ranker/linear"].tobytes() == every.recommender.tensors["ranker/linear"].tobytes()


def test_ranks_of_the_served_order_are_those_of_the_list() -> None:
    """What is measured is what is served."""
    learner = learned()
    taken = learner._take_in(micro_batch(clicks([("u", "a"), ("u", "b"), ("v", "c"), ("u", "d")]), first_key=900))
    chosen = choose(taken, None)
    found = examine(learner.recommender, taken, chosen, np.ones(len(taken.item), np.bool_))
    for event, ahead in zip(chosen.tolist(), found.ranked.ahead.tolist(), strict=True):
        history = taken.history[event : event + 1].astype(np.int64)
        rows, _ = learner.recommender.top_k(history, 20, last=taken.ts[event : event + 1] - taken.idle[event])
        listed = rows[0].tolist()
        assert listed.index(int(taken.item[event])) == ahead
