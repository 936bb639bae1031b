import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.memory_store import MemoryStore
from service.model.recommender import Recommender
from service.scoring.top_k import best_items, excluded
from tests.service.scoring.worlds import CONFIG, Trainer


def _model() -> Recommender:
    trainer = Trainer(MemoryStore())
    trainer.learn(400)
    found = Recommender(CONFIG)
    found.apply(trainer.learner.snapshot())
    return found


MODEL = _model()
KNOWN = [item for item in MODEL.ids if item]
some_items = st.lists(st.sampled_from([*KNOWN, "unknown", ""]), max_size=30)


@given(st.lists(some_items, min_size=1, max_size=6), st.integers(1, 80), st.sets(st.sampled_from(KNOWN)), st.data())
def test_lists_are_sorted_bounded_finite_and_hold_nothing_twice_or_forbidden(
    histories: list[list[str]], k: int, blocked: set[str], data: st.DataObject
) -> None:
    n = len(histories)
    hidden = data.draw(st.none() | st.lists(some_items, min_size=n, max_size=n))
    ranked = best_items(MODEL, histories, k, exclude=excluded(MODEL, blocked), hidden=hidden)
    assert len(ranked) == n
    for number, best in enumerate(ranked):
        items, values = [item for item, _ in best], [score for _, score in best]
        gone = blocked | set(hidden[number] if hidden else ())
        assert values == sorted(values, reverse=True)
        assert all(map(math.isfinite, values))
        assert len(set(items)) == len(items) == min(k, len(set(KNOWN) - gone))
        assert not gone & set(items)
        assert "" not in items


@given(some_items)
def test_a_user_ranks_the_same_in_any_company(history: list[str]) -> None:
    alone = best_items(MODEL, [history], 10)[0]
    among = best_items(MODEL, [KNOWN[:30], history, []], 10)[1]
    assert [item for item, _ in alone] == [item for item, _ in among]
    assert [s for _, s in alone] == pytest.approx([s for _, s in among], abs=1e-4)


def test_unknown_items_count_for_nothing() -> None:
    assert best_items(MODEL, [["unknown"]], 10) == best_items(MODEL, [[]], 10)


def test_when_everything_is_blocked_nothing_is_listed() -> None:
    assert best_items(MODEL, [KNOWN[:3], []], 10, exclude=excluded(MODEL, set(KNOWN))) == [[], []]


def test_no_mask_without_blocked_items() -> None:
    assert excluded(MODEL, set()) is None
    mask = excluded(MODEL, {"unknown", KNOWN[2]})
    assert mask is not None
    assert np.flatnonzero(mask).tolist() == MODEL.rows_of([KNOWN[2]]).tolist()
