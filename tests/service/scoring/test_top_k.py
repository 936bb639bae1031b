import math
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_store.memory_store import MemoryStore
from service.model.query import NOT_KNOWN
from service.model.recommender import Recommender
from service.scoring.top_k import Ask, ScoredItems, best_items, excluded
from tests.service.scoring.worlds import CONFIG, Trainer


def _model() -> Recommender:
    trainer = Trainer(MemoryStore())
    trainer.learn(400)
    found = Recommender(CONFIG)
    found.apply(trainer.learner.snapshot())
    return found


def ranked_of(
    model: Recommender, histories: Sequence[Sequence[str]], k: int, *, exclude: NDArray[np.bool_] | None = None
) -> list[ScoredItems]:
    return best_items(model, [Ask(history, NOT_KNOWN) for history in histories], k, exclude=exclude)[0]


MODEL = _model()
assert CONFIG.ranker is not None
LEAST = CONFIG.ranker.candidates
KNOWN = [item for item in MODEL.ids if item]
some_items = st.lists(st.sampled_from([*KNOWN, "unknown", ""]), max_size=30)


@given(st.lists(some_items, min_size=1, max_size=6), st.integers(1, 80), st.sets(st.sampled_from(KNOWN)), st.data())
def test_lists_are_sorted_bounded_finite_and_hold_nothing_twice_or_forbidden(
    histories: list[list[str]], k: int, blocked: set[str], data: st.DataObject
) -> None:
    n = len(histories)
    hidden = data.draw(st.none() | st.lists(some_items, min_size=n, max_size=n))
    asked = [Ask(history, NOT_KNOWN, hidden[n] if hidden else ()) for n, history in enumerate(histories)]
    ranked, _ = best_items(MODEL, asked, k, exclude=excluded(MODEL, blocked))
    assert len(ranked) == n
    for number, best in enumerate(ranked):
        items, values = [item for item, _ in best], [score for _, score in best]
        gone = blocked | set(hidden[number] if hidden else ())
        assert values == sorted(values, reverse=True)
        assert all(map(math.isfinite, values))
        left = len(set(KNOWN) - gone)
        assert min(k, left, LEAST) <= len(items) <= min(k, left)
        assert len(set(items)) == len(items)
        assert not gone & set(items)
        assert "" not in items


@given(some_items)
def test_a_user_ranks_the_same_in_any_company(history: list[str]) -> None:
    alone = ranked_of(MODEL, [history], 10)[0]
    among = ranked_of(MODEL, [KNOWN[:30], history, []], 10)[1]
    assert alone == among


def test_unknown_items_count_for_nothing() -> None:
    assert ranked_of(MODEL, [["unknown"]], 10) == ranked_of(MODEL, [[]], 10)


def test_when_everything_is_blocked_nothing_is_listed() -> None:
    assert ranked_of(MODEL, [KNOWN[:3], []], 10, exclude=excluded(MODEL, set(KNOWN))) == [[], []]


def test_no_mask_without_blocked_items() -> None:
    assert excluded(MODEL, set()) is None
    mask = excluded(MODEL, {"unknown", KNOWN[2]})
    assert mask is not None
    assert np.flatnonzero(mask).tolist() == MODEL.rows_of([KNOWN[2]]).tolist()
