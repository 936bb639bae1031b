import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.changes import Touched
from service.model.config import ItemsConfig
from service.model.hashing import uniform_rows
from service.model.item_table import ItemTable
from service.model.unlisted import Unlisted

ITEMS = ItemsConfig(remember_unlisted=True)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 5)), max_size=40), st.integers(0, 100))
def test_no_two_items_share_a_row(steps: list[tuple[int, int]], seed: int) -> None:
    table, serial = ItemTable(ITEMS), 0
    living: dict[str, int] = {}
    for clock, (add, expire) in enumerate(steps):
        ids = [f"i{serial + n}" for n in range(add)]
        serial += add
        living |= dict(zip(ids, table.add(ids, clock).tolist(), strict=True))
        gone = set(table.expire(min(expire, len(living)), np.empty(0, np.int64), clock).tolist())
        living = {item: row for item, row in living.items() if row not in gone}
        assert len(set(living.values())) == len(living) == table.in_use
        assert table.rows_of(list(living)).tolist() == list(living.values())
        assert all(table.names.ids[row] == item for item, row in living.items())
        assert int(table.listable.array[: table.size].sum()) == len(living)


def test_the_unused_longest_go_first_and_those_in_use_stay() -> None:
    table = ItemTable(ITEMS)
    table.add(["a", "b", "c", "d"], 1)
    table.use(np.array([0]), 5)
    assert table.expire(2, keep=np.array([1]), clock=6).tolist() == [2, 3]
    assert table.add(["e"], 6).tolist() == [2]
    assert table.expire(3, keep=np.array([0]), clock=7).tolist() == [1, 2]  # there are no more


ids = st.sampled_from(["a", "b", "c", "d", "e"])


@given(st.lists(st.tuples(st.sampled_from(["touch", "list", "unlist", "expire", "restart"]), ids), max_size=40))
def test_what_may_not_be_listed_outlives_its_row(steps: list[tuple[str, str]]) -> None:
    table, listable = ItemTable(ITEMS), dict[str, bool]()
    for clock, (what, item) in enumerate(steps):
        if what == "expire":
            table.expire(2, np.empty(0, np.int64), clock)
        elif what == "restart":
            table = restored(table)
        elif (row := table.rows_of([item])[0]) < 0:
            table.add([item], clock)
            listable.setdefault(item, True)
        if what in ("list", "unlist"):
            listable[item] = what == "list"
            table.set_listable(table.rows_of([item]), np.array([what == "list"], np.uint8))
        for item, row in zip(listable, table.rows_of(list(listable)).tolist(), strict=True):
            gone = row < 0 and not listable[item]
            assert gone == (item in table.unlisted.names.ids)
            assert row < 0 or table.listable.array[row] == listable[item]


def restored(table: ItemTable) -> ItemTable:
    again = ItemTable(ITEMS)
    again.names.load(table.names.ids)
    again.unlisted.names.load(table.unlisted.names.ids)
    for to, of in (
        (again.listable, table.listable),
        (again.last_used, table.last_used),
        (again.unlisted.since, table.unlisted.since),
    ):
        to.load(of.array[: of.size])
    again.restored()
    return again


@given(st.lists(st.integers(0, 7), max_size=12), st.integers(1, 10))
def test_of_too_many_unlisted_items_those_that_came_first_are_forgotten(many: list[int], at_most: int) -> None:
    unlisted, came = Unlisted(at_most), list[str]()
    for clock, n in enumerate(many):
        new = [f"{clock}-{k}" for k in range(n)]
        unlisted.add(new, clock)
        came += new
        held = {item for item in unlisted.names.ids if item}
        assert len(held) == len(unlisted) <= at_most
        assert held == set(came[len(came) - len(held) :])
        assert len(held) >= min(len(came), at_most - at_most // 16)
    assert unlisted.take(["other", *came[-1:]]).tolist() == [False, *[True] * len(came[-1:])]
    assert not unlisted.take(came[-1:]).any()


def test_first_rows_depend_on_seed_and_id_alone() -> None:
    ids = ["a", "b", "ü", "\ud800"]
    rows = uniform_rows(7, ids, 16)
    assert np.array_equal(rows[::-1], uniform_rows(7, ids[::-1], 16))
    assert not np.array_equal(rows, uniform_rows(8, ids, 16))
    assert np.array_equal(rows[:, :4], uniform_rows(7, ids, 4))
    many = uniform_rows(0, [str(n) for n in range(2000)], 32)
    assert np.abs(many).max() < 1
    assert abs(many.mean()) < 0.01
    assert many.var() == pytest.approx(1 / 3, rel=0.02)


def test_touched_rows_are_unique_however_many_were_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Touched, "COMPACT", 10)
    touched = Touched()
    for n in range(50):
        touched.add(np.array([n % 7, 3]))
    assert touched.take().tolist() == list(range(7))
    assert touched.take().tolist() == []
