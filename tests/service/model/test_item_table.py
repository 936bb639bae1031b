import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.changes import Touched
from service.model.hashing import uniform_rows
from service.model.item_table import ItemTable


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 5)), max_size=40), st.integers(0, 100))
def test_no_two_items_share_a_row(steps: list[tuple[int, int]], seed: int) -> None:
    table, serial = ItemTable(), 0
    living: dict[str, int] = {}
    for clock, (add, expire) in enumerate(steps):
        ids = [f"i{serial + n}" for n in range(add)]
        serial += add
        living |= dict(zip(ids, table.add(ids, clock).tolist(), strict=True))
        gone = set(table.expire(min(expire, len(living)), keep=np.empty(0, np.int64)).tolist())
        living = {item: row for item, row in living.items() if row not in gone}
        assert len(set(living.values())) == len(living) == table.in_use
        assert table.rows_of(list(living)).tolist() == list(living.values())
        assert all(table.names.ids[row] == item for item, row in living.items())
        assert int(table.listable.array[: table.size].sum()) == len(living)


def test_the_unused_longest_go_first_and_those_in_use_stay() -> None:
    table = ItemTable()
    table.add(["a", "b", "c", "d"], 1)
    table.use(np.array([0]), 5)
    assert table.expire(2, keep=np.array([1])).tolist() == [2, 3]
    assert table.add(["e"], 6).tolist() == [2]
    with pytest.raises(ValueError, match="max_items"):
        table.expire(3, keep=np.array([0]))


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
