"""How long users had been idle. What else the table holds is looked at through the learner and the intake."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.query import NOT_KNOWN
from service.training.user_table import UserTable

LENGTH = 3
Event = tuple[int, float]  # user and time


def table_of(users: int = 4, limit: int | None = None) -> UserTable:
    table = UserTable(LENGTH)
    table.rows_of([f"u{n}" for n in range(users)], limit=limit)
    return table


def take(table: UserTable, events: Sequence[Event]) -> list[float]:
    """The idle times of a batch's events, which then join histories."""
    user, ts = np.array([user for user, _ in events], np.int64), np.array([ts for _, ts in events], np.float64)
    idle: list[float] = table.idle(user, ts).tolist()
    table.append_items(user, np.zeros(len(user), np.int64), ts)
    return idle


@pytest.mark.parametrize(
    ("before", "events", "wanted"),
    [
        ([], [(0, 50.0)], [NOT_KNOWN]),
        ([(0, 20.0)], [(0, 50.0), (1, 50.0)], [30.0, NOT_KNOWN]),
        ([(0, 20.0)], [(0, 50.0), (0, 51.0), (1, 60.0), (0, 61.0)], [30.0, 1.0, NOT_KNOWN, 10.0]),
        ([(0, 20.0), (0, 30.0)], [(0, 50.0)], [20.0]),
        ([(0, 20.0)], [(0, 15.0), (0, 18.0)], [0.0, 3.0]),  # times may go back; nobody is idle for less than nothing
        ([(0, 0.0)], [(0, 7.0)], [7.0]),  # at the epoch itself
    ],
)
def test_idle_is_the_time_since_the_users_event_before(
    before: list[Event], events: list[Event], wanted: list[float]
) -> None:
    table = table_of()
    take(table, before)
    assert take(table, events) == wanted


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1_000).map(float)), max_size=40), st.integers(1, 10))
def test_where_batches_are_cut_makes_no_difference(events: list[Event], size: int) -> None:
    whole, cut = table_of(), table_of()
    parts = [take(cut, events[start : start + size]) for start in range(0, len(events), size)]
    assert [idle for part in parts for idle in part] == (take(whole, events) if events else [])


def test_who_comes_after_an_expired_user_was_never_idle() -> None:
    table = table_of(users=2, limit=2)
    take(table, [(0, 5.0), (1, 6.0)])
    (row,) = table.rows_of(["somebody else"], limit=2)
    assert take(table, [(int(row), 9.0)]) == [NOT_KNOWN]
