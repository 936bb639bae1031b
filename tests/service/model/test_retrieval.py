"""The index, changed in place, against the product with all rows."""

import sys

import numpy as np
import pytest
import torch

from service.model.encoders.directions import normalise
from service.model.retrieval import ADDED, MissingIndex, Retrieval
from service.model.row_table import RowTable

DIM, K = 16, 20


class World:
    """Rows in clusters, as the network's are, written to a retrieval with an index and to one without."""

    def __init__(self, exact_up_to: int = 100) -> None:
        self.rng = np.random.default_rng(0)
        self.centres = self.rng.normal(size=(40, DIM))
        self.unit = RowTable("", (DIM,), torch.float32)
        self.indexed = Retrieval(self.unit, exact_up_to, indexes=True)
        self.exact = Retrieval(self.unit, 1 << 30, indexes=True)

    def some(self, n: int) -> torch.Tensor:
        """[n, D] directions."""
        rows = self.centres[self.rng.integers(0, len(self.centres), n)] + 0.6 * self.rng.normal(size=(n, DIM))
        return normalise(torch.from_numpy(rows.astype(np.float32)))[0]

    def grow(self, size: int) -> None:
        self.unit.resize(size)
        self.indexed.resized()

    def write(self, rows: np.ndarray, values: torch.Tensor) -> None:
        self.unit.data[torch.from_numpy(rows)] = values
        self.indexed.written(rows)
        while self.indexes and not self.indexed.filled:
            self.indexed.written(rows[:0])

    @property
    def indexes(self) -> bool:
        return self.unit.size > 100

    def remove(self, rows: np.ndarray) -> None:
        self.write(rows, torch.zeros(len(rows), DIM))

    @property
    def free(self) -> np.ndarray:
        return ~self.unit.data[: self.unit.size].any(1).numpy()

    def recall(self, shut: np.ndarray) -> float:
        directions = self.some(50)
        wanted = self.exact.best(directions, K, shut | self.free)
        got = self.indexed.best(directions, K, shut)
        assert not self.free[got].any(), "a removed row was proposed"
        assert not shut[got].any(), "a row that must not be listed was proposed"
        return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(wanted.tolist(), got.tolist(), strict=True)]))


def test_after_many_changes_the_index_still_finds_the_best() -> None:
    pytest.importorskip("usearch")
    world = World()
    size = 0
    for _ in range(12):
        new = np.arange(size, size + 250)
        size += 250
        world.grow(size)
        world.write(new, world.some(250))
        moved = np.sort(world.rng.choice(size, size // 4, replace=False))
        world.write(moved, world.some(len(moved)))
        world.remove(np.sort(world.rng.choice(size, 40, replace=False)))
    open_to_all = np.zeros(size, np.bool_)
    assert world.recall(open_to_all) > 0.97
    half = world.rng.choice(size, size // 2, replace=False)
    world.remove(np.sort(half))
    assert world.recall(open_to_all) > 0.95
    world.write(np.sort(half), world.some(len(half)))  # the rows are given to other items
    assert world.recall(open_to_all) > 0.97


def test_while_the_index_is_filled_all_are_compared() -> None:
    pytest.importorskip("usearch")
    world = World()
    world.unit.resize(2 * ADDED)
    world.unit.data[: 2 * ADDED] = world.some(2 * ADDED)
    shut, directions = np.zeros(2 * ADDED, np.bool_), world.some(4)
    world.indexed.resized()
    for rows in ([3], [5, ADDED + 5]):
        assert not world.indexed.filled
        assert np.array_equal(world.indexed.best(directions, K, shut), world.exact.best(directions, K, shut))
        world.unit.data[rows] = world.some(len(rows))
        world.indexed.written(np.array(rows))
    assert world.indexed.filled
    assert world.recall(shut) > 0.97


def test_a_row_that_drifts_in_small_steps_is_found_where_it_is() -> None:
    pytest.importorskip("usearch")
    world = World()
    world.grow(300)
    world.write(np.arange(300), world.some(300))
    assert world.indexed.filled
    begin, end = world.unit.data[7].clone(), world.some(1)[0]
    for share in np.linspace(0, 1, 60):
        world.write(np.array([7]), normalise((begin * (1 - share) + end * share).unsqueeze(0))[0])
    assert world.indexed.best(end.unsqueeze(0), 1, np.zeros(300, np.bool_))[0, 0] == 7


@pytest.mark.parametrize("shut_share", [0.3, 0.9, 1.0])
def test_where_most_rows_are_shut_lists_are_full_nevertheless(shut_share: float) -> None:
    pytest.importorskip("usearch")
    world = World()
    world.grow(1_000)
    world.write(np.arange(1_000), world.some(1_000))
    shut = np.zeros(1_000, np.bool_)
    shut[world.rng.choice(1_000, int(shut_share * 1_000), replace=False)] = True
    directions = world.some(8)
    wanted, got = (each.best(directions, K, shut) for each in (world.exact, world.indexed))
    assert np.array_equal(wanted < 0, got < 0)
    if shut_share == 0.9:
        assert np.mean(wanted == got) > 0.9


def test_one_direction_or_none_and_an_empty_one() -> None:
    pytest.importorskip("usearch")
    world = World()
    world.grow(200)
    world.write(np.arange(200), world.some(200))
    shut, directions = np.zeros(200, np.bool_), world.some(3)
    directions[1] = 0
    together = world.indexed.best(directions, K, shut)
    assert (together[1] == -1).all()
    assert np.array_equal(world.indexed.best(directions[:1], K, shut)[0], together[0])
    assert world.indexed.best(directions[:0], K, shut).shape == (0, K)


def test_up_to_the_limit_every_item_is_compared_and_beyond_it_without_an_index_none() -> None:
    unit = RowTable("", (2,), torch.float32)
    retrieval = Retrieval(unit, 3, indexes=False)
    unit.resize(3)
    retrieval.resized()
    unit.data[:3] = torch.tensor([[0.6, 0.8], [1.0, 0.0], [0.6, 0.8]])
    shut, direction = np.zeros(4, np.bool_), torch.tensor([[0.0, 1.0]])
    assert retrieval.best(direction, 4, shut).tolist() == [[0, 2, 1, -1]]
    unit.resize(4)
    retrieval.resized()
    assert retrieval.best(direction, 4, shut).tolist() == [[-1, -1, -1, -1]]


def test_without_the_library_more_items_are_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    world = World()
    world.grow(100)
    with pytest.raises(MissingIndex, match=r"more than 100 items.* pip install 'tidemill\[index\]'"):
        world.grow(101)
