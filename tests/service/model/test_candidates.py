"""The union of candidates, beside a plain one."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.model.candidates import Union
from service.model.channel import Look
from service.model.query import NOT_KNOWN, Query

ITEMS, LENGTH = 20, 3
ROW = st.integers(-1, ITEMS - 1)


@dataclass
class Proposed:
    """A look of which only the proposals count."""

    candidates: NDArray[np.int32]
    reserve: NDArray[np.int32]

    def kept(self, b: int) -> object:
        return None

    def describe(self, rows: NDArray[np.int32], offsets: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        raise AssertionError("candidates are not described here")


def query_of(histories: list[list[int]], shut: set[int]) -> Query:
    of_rows = np.zeros(ITEMS, np.bool_)
    of_rows[list(shut)] = True
    given_ = np.array(histories, np.int64).reshape(-1, LENGTH)
    n = len(given_)
    return Query.of(given_, clock=0, shut=of_rows, now=np.zeros(n), idle=np.full(n, NOT_KNOWN, np.float32))


def look(proposed: list[list[int]], reserve: list[int]) -> Look:
    return Proposed(np.array(proposed, np.int32).reshape(len(proposed), LENGTH), np.array(reserve, np.int32))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[list[int]], list[list[list[int]]], list[int], set[int], list[list[int]]]:
    """Histories, the proposals of two looks for each, a reserve, rows that are shut, rows that are hidden."""
    n = draw(st.integers(0, 4))
    per_history = st.lists(st.lists(ROW, min_size=LENGTH, max_size=LENGTH), min_size=n, max_size=n)
    reserve = draw(st.lists(st.integers(0, ITEMS - 1), max_size=10))
    return (
        draw(per_history), [draw(per_history), draw(per_history)], reserve,
        draw(st.sets(st.integers(0, ITEMS - 1))), draw(per_history),
    )  # fmt: skip


@given(worlds(), st.integers(1, 12), st.integers(0, 3))
def test_it_is_proposals_then_the_history_then_the_reserve(
    world: tuple[list[list[int]], list[list[list[int]]], list[int], set[int], list[list[int]]], least: int, latest: int
) -> None:
    histories, proposals, reserve, shut, hidden = world
    union = Union(least, latest)
    query, looks = query_of(histories, shut), [look(each, reserve[:n]) for n, each in enumerate(proposals, 3)]
    hide = np.array(hidden, np.int64).reshape(-1, LENGTH)
    for _ in range(2):  # what one call saw is nothing to the next
        pairs = union.of(query, looks, hide)
        assert len(pairs.offsets) == len(histories) + 1
        for b, history in enumerate(histories):
            at = pairs.at(b)
            found = dict(zip(pairs.rows[at].tolist(), pairs.origin[at].tolist(), strict=True))
            assert len(found) == at.stop - at.start  # each once
            closed = shut | set(hidden[b])
            proposed = [each[b] for each in proposals]
            assert list(found.items()) == plain(proposed, history, reserve[:3] + reserve[:4], least, latest, closed)


def plain(
    proposed: list[list[int]], history: list[int], reserve: list[int], least: int, latest: int, closed: set[int]
) -> list[tuple[int, int]]:
    """The candidates of one history and their origins: 0 and 1 are the looks, 2 the history, 3 the reserve."""
    said = [(row, origin) for origin, rows in enumerate(proposed) for row in rows]
    held = [row for row in reversed(history) if row >= 0][:latest]
    found: dict[int, int] = {}
    for row, origin in said + [(row, 2) for row in held]:
        if row >= 0 and row not in closed:
            found.setdefault(row, origin)
    for row in reserve:
        if len(found) < least and row not in closed:
            found.setdefault(row, 3)
    return list(found.items())


def test_a_catalogue_that_grows_is_no_obstacle() -> None:
    union = Union(2, 2)
    small = Query.of(
        np.array([[0]]), clock=0, shut=np.zeros(1, np.bool_), now=np.zeros(1), idle=np.zeros(1, np.float32)
    )
    assert union.of(small, [look([[0, -1, -1]], [])]).rows.tolist() == [0]
    assert union.of(query_of([[7, 8, 9]], set()), [look([[19, -1, -1]], [])]).rows.tolist() == [19, 9, 8]


@pytest.mark.parametrize(
    ("shut", "rows", "origin"), [(set(), [4, 9], [0, 1]), ({9}, [4, 5], [0, 2]), ({4}, [9, 5], [1, 2])]
)
def test_who_proposed_a_candidate_is_known(shut: set[int], rows: list[int], origin: list[int]) -> None:
    """Of one look: 0 is the look, 1 the history, 2 the reserve."""
    pairs = Union(2, 1).of(query_of([[7, 8, 9]], shut), [look([[4, -1, -1]], [5])])
    assert (pairs.rows.tolist(), pairs.origin.tolist()) == (rows, origin)
