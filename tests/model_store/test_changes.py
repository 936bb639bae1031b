"""What is taken, by each keeper of count at its own pace, adds up to the same state elsewhere, bit for bit."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.changes import Changes, Touched
from model_store.weights import TRAINER, Rows, State, Update
from tests.model_store.worlds import assert_same, every, histories, index, small, state_of, tensor_values, values


def everything(name: str) -> bool:
    return True


def for_trainers(name: str) -> bool:
    return name.startswith(TRAINER)


def for_readers(name: str) -> bool:
    return not name.startswith(TRAINER)


@given(histories(most=8), st.data())
@pytest.mark.parametrize("want", [everything, for_trainers, for_readers])
def test_what_is_taken_now_and_then_adds_up(
    want: Callable[[str], bool], updates: list[Update], data: st.DataObject
) -> None:
    """Applied elsewhere, as a delta of a chain or the next checkpoint; a full update may come again at any time."""
    state, elsewhere, changes = State(), State(), Changes(want)
    for number, update in enumerate(updates):
        if number and data.draw(st.booleans()) and data.draw(st.booleans()):
            update = state_of(updates[: number + 1]).snapshot()
        before = data.draw(st.booleans())
        if before:
            changes.add(update)
        state.apply(update)
        if not before:
            changes.add(update)
        if number == 0 or data.draw(st.booleans()):
            elsewhere.apply(changes.take(state))
            assert_same(elsewhere.snapshot(), state.snapshot(want))
            nothing = changes.take(state)
            assert not nothing.full
            assert not any(len(rows.index) for rows in nothing.tables.values())
            assert not nothing.tensors
    elsewhere.apply(changes.take(state))
    assert_same(elsewhere.snapshot(), state.snapshot(want))
    assert_same(state.snapshot(), state_of(updates).snapshot())


def test_only_what_changed_is_taken_each_row_once() -> None:
    state, changes = state_of([small(0)]), Changes()
    for seed in (1, 2):
        update = small(seed, full=False)  # the rows 1 and 2
        changes.add(update)
        state.apply(update)
    grown = Update(False, {"item/id": Rows(index(0, 4), values("item/id", 2, 9), 5)})
    changes.add(grown)
    state.apply(grown)
    taken = changes.take(state)
    assert not taken.full
    assert taken.tables["item/row"].index.tolist() == [1, 2]
    assert taken.tables["item/id"].index.tolist() == [0, 1, 2, 4]
    assert taken.tables["item/id"].size == 5
    assert list(taken.tensors) == ["network/weight"]
    np.testing.assert_array_equal(taken.tables["item/row"].values, values("item/row", 2, 2))


def test_after_a_full_update_everything_is_taken_once() -> None:
    state, changes = State(), Changes(for_readers)
    full = Update(True, {"item/id": every("item/id", 3, 1), "trainer/user/id": every("trainer/user/id", 2, 1)})
    later = Update(False, {}, tensor_values(["network/weight"], 1))
    for update in (full, later):
        changes.add(update)
        state.apply(update)
    taken = changes.take(state)
    assert taken.full
    assert (list(taken.tables), list(taken.tensors)) == (["item/id"], ["network/weight"])
    assert changes.take(state) == Update(False)


@given(st.lists(st.one_of(st.none(), st.lists(st.integers(0, 50), max_size=30)), max_size=30))
def test_touched_rows_come_out_once_and_ascending(steps: list[list[int] | None]) -> None:
    """None: somebody takes them. However often they are made unique in between."""
    touched, expected = Touched(), set[int]()
    touched.COMPACT = 10
    for rows in steps:
        if rows is None:
            assert touched.take().tolist() == sorted(expected)
            expected = set()
        else:
            touched.add(index(*rows))
            expected |= set(rows)
    assert touched.take().tolist() == sorted(expected)
    assert touched.take().tolist() == []


@given(st.lists(st.lists(st.integers(0, 20))))
def test_each_touched_row_is_taken_once_in_order(parts: list[list[int]]) -> None:
    touched = Touched()
    for part in parts:
        touched.add(np.array(part, dtype=np.int64))
    taken = touched.take()
    assert taken.dtype == np.int64
    assert taken.tolist() == sorted({row for part in parts for row in part})
    assert touched.take().tolist() == []
