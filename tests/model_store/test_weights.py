"""The sum of updates, and the updates that make no sense."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from model_store.errors import InvalidUpdate
from model_store.weights import Array, Rows, State, Update, check, is_name
from tests.model_store.worlds import assert_same, histories, index, same, small, state_of


def table(*rows: int, size: int, width: int = 2, full: bool = False, value: float = 1.0) -> Update:
    return Update(full, {"t": Rows(index(*rows), np.full((len(rows), width), value, np.float32), size)})


@given(histories())
def test_a_state_is_what_a_dictionary_of_rows_would_be(updates: list[Update]) -> None:
    """The plainest thing that could be right, as the measure."""
    tables: dict[str, dict[int, object]] = {}
    tensors: dict[str, Array] = {}
    for update in updates:
        for name, rows in update.tables.items():
            plain = rows.values if isinstance(rows.values, list) else [row.tobytes() for row in rows.values]
            tables.setdefault(name, {}).update(zip(rows.index.tolist(), plain, strict=True))
        tensors.update(update.tensors)
    state = state_of(updates)
    assert state.tables == {name: len(rows) for name, rows in tables.items()}
    for name, expected in tables.items():
        found = state.table(name)
        plain = found if isinstance(found, list) else [row.tobytes() for row in found]
        assert plain == [expected[row] for row in range(len(expected))]
    assert sorted(state.tensors) == sorted(tensors)
    assert all(same(state.tensor(name), tensor) for name, tensor in tensors.items())


@given(histories())
def test_a_snapshot_begins_the_same_state_anew(updates: list[Update]) -> None:
    snapshot = state_of(updates).snapshot()
    check(snapshot)
    assert_same(state_of([snapshot]).snapshot(), snapshot)


def test_the_state_keeps_nothing_of_the_callers() -> None:
    mine = np.ones((2, 2), np.float32)
    state = state_of([Update(True, {"t": Rows(index(0, 1), mine, 2)}, {"w": mine})])
    mine[:] = 9
    assert same(state.table("t"), np.ones((2, 2), np.float32))
    assert same(state.tensor("w"), np.ones((2, 2), np.float32))


def test_what_it_hands_out_cannot_be_written() -> None:
    state = state_of([small()])
    for name in ("item/row", "item/popularity"):
        view = state.table(name)
        assert isinstance(view, np.ndarray)
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        state.tensor("network/weight")[0] = 0
    state.apply(small(1, full=False))  # and stays writable for itself


def test_a_full_update_leaves_nothing_of_what_was() -> None:
    state = state_of([small(), table(0, size=1, full=True)])
    assert state.tables == {"t": 1}
    assert state.tensors == []


def test_a_subset_by_name() -> None:
    snapshot = state_of([small()]).snapshot(lambda name: name.startswith("item/"))
    assert sorted(snapshot.tables) == ["item/flag", "item/id", "item/popularity", "item/row"]
    assert not snapshot.tensors


def test_growing_row_by_row_copies_seldom() -> None:
    state = state_of([table(size=0, full=True)])
    places = set()
    for size in range(1, 1001):
        state.apply(table(size - 1, size=size))
        view = state.table("t")
        assert isinstance(view, np.ndarray)
        places.add(view.__array_interface__["data"][0])
    assert same(view, np.ones((1000, 2), np.float32))
    assert len(places) <= 12


@pytest.mark.parametrize(
    ("update", "why"),
    [
        (table(0, 4, size=5), "a gap, 1 of the 2 new rows 3..4"),
        (table(size=4), "a gap, 0 of the 1 new rows"),
        (table(0, size=2), "only a full update shrinks"),
        (table(0, 1, 2, size=3, width=3), r"rows of float32\[3\] where they were float32\[2\]"),
        (Update(False, {"t": Rows(index(0), np.ones((1, 2)), 3)}), r"rows of float64\[2\]"),
        (Update(False, {"t": Rows(index(0), ["a"], 3)}), "rows of strings"),
        (Update(False, {"new": Rows(index(1), ["a"], 2)}), "new: a gap"),
        (Update(False, {}, {"w": np.zeros(3, np.float64)}), "w: float64 where it was float32"),
        (Update(False, {}, {"t": np.zeros(3)}), "t is a table"),
        (Update(False, {"w": Rows(index(0), ["a"], 1)}), "w is a tensor"),
        (table(0, 1, size=3, full=True), "a full update with 2 of 3 rows"),
        (table(1, 0, size=3), "does not ascend"),
        (table(1, 1, size=3), "does not ascend"),
        (table(-1, size=3), "rows -1..-1 of a table of 3"),
        (table(3, size=3), "rows 3..3 of a table of 3"),
        (Update(False, {"t": Rows(index(0), np.ones((2, 2), np.float32), 3)}), "2 values for 1 rows"),
        (Update(False, {"t": Rows(np.zeros(1, np.int32), np.ones((1, 2)), 3)}), "int32"),
        (Update(False, {"t": Rows(index(), np.ones(()), 3)}), "no rows"),
        (Update(False, {"t": Rows(index(), [], -1)}), "size -1"),
        (Update(False, {"../t": Rows(index(), [], 0)}), "no name"),
        (Update(False, {"x": Rows(index(), [], 0)}, {"x": np.ones(1)}), "both a table and a tensor"),
    ],
)
def test_an_update_that_does_not_fit_changes_nothing(update: Update, why: str) -> None:
    first = table(0, 1, 2, size=3, full=True)
    state = state_of([replace(first, tensors={"w": np.zeros(2, np.float32)})])
    before = state_of([state.snapshot()]).snapshot()
    good = Rows(index(0), ["first"], 1)  # comes before the bad one, and must not be applied either
    with pytest.raises(InvalidUpdate, match=why):
        state.apply(replace(update, tables={"a": good, **update.tables}))
    assert_same(state.snapshot(), before)


@pytest.mark.parametrize("name", ["a", "item/row", "network/gru.weight_ih_l0", "a-b/c_d/0", "x" * 200])
def test_names(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.b", "a:b", "a b", "a\n", "ä", "a\x00", "x" * 201]
)
def test_names_that_lead_astray(name: str) -> None:
    assert not is_name(name)


def test_an_empty_state_is_an_empty_full_update() -> None:
    assert_same(State().snapshot(), Update(True))
