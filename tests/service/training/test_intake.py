import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.events import DEFAULT_EVENT_WEIGHTS
from consumers.micro_batch import ItemChange, MicroBatch
from service.model.channel import Examples
from service.model.config import ItemsConfig
from service.model.history import HistoryRule
from service.model.item_table import ItemTable
from service.training.intake import Events, Items, seen_earlier, take_events, take_items
from service.training.user_table import UserTable
from tests.service.training.streams import clicks, micro_batch, random_events

ITEMS = ItemsConfig(remember_unlisted=True)
RULE = HistoryRule(5, DEFAULT_EVENT_WEIGHTS)


class Taker:
    """Takes one batch after the other, as a learner does."""

    def __init__(self, length: int = 5, max_items: int | None = None, max_users: int | None = None) -> None:
        self.items, self.users, self.clock = ItemTable(ITEMS), UserTable(length), 0
        self._max_items, self._max_users = max_items, max_users

    def take(self, batch: MicroBatch) -> tuple[Items, Events]:
        items = take_items(self.items, batch, self.clock, self._max_items)
        if len(items.expired):
            gone = np.zeros(self.items.size, np.bool_)
            gone[items.expired] = True
            self.users.forget_items(gone)
        weight = RULE.weights(batch.type, batch.value)
        events = take_events(self.users, batch, items, weight, self.clock, self._max_users)
        self.clock += events.accepted
        return items, events

    def ids(self, rows: np.ndarray) -> list[str]:
        return [self.items.names.ids[row] for row in rows.tolist() if row >= 0]

    def listable(self) -> set[str]:
        return set(self.ids(np.flatnonzero(self.items.listable.array[: self.items.size])))


def test_new_items_get_rows_the_catalogue_s_first() -> None:
    taker = Taker()
    catalogue = [ItemChange("c"), ItemChange("b")]
    items, _ = taker.take(micro_batch(clicks([("u", "a"), ("v", "b")]), catalogue=catalogue))
    assert taker.ids(items.begun) == ["c", "b", "a"]
    assert taker.ids(items.row) == ["a", "b"]
    assert items.known.tolist() == [False, True]
    assert len(items.expired) == 0
    items, _ = taker.take(micro_batch(clicks([("u", "d"), ("v", "a")]), first_key=10))
    assert taker.ids(items.begun) == ["d"]
    assert items.known.tolist() == [False, True]
    assert taker.items.last_used.array[: taker.items.size].tolist() == [0, 0, 2, 2]  # c, b, a, d: on the event clock


def test_an_item_may_be_listed_as_its_last_change_says() -> None:
    taker = Taker()
    taker.take(micro_batch(clicks([("u", "a"), ("u", "b")]), catalogue=[ItemChange("c", available=False)]))
    assert taker.listable() == {"a", "b"}
    changes = [ItemChange("c", available=False), ItemChange("b", deleted=True), ItemChange("c")]
    taker.take(micro_batch([], catalogue=changes))
    assert taker.listable() == {"a", "c"}
    taker.take(micro_batch(clicks([("u", "b")]), first_key=10))  # an event brings no deleted item back
    assert taker.listable() == {"a", "c"}


def test_those_unused_longest_make_room_a_sixteenth_at_a_time() -> None:
    taker = Taker(max_items=64)
    for n in range(64):
        taker.take(micro_batch(clicks([("u", f"i{n}")]), first_key=n + 1))
    taker.take(micro_batch(clicks([("u", "i0")]), first_key=100))
    items, _ = taker.take(micro_batch(clicks([("u", "new"), ("v", "i1")]), first_key=200))
    assert items.expired.tolist() == [2, 3, 4, 5]
    assert items.begun.tolist() == [2]
    assert taker.items.in_use == 61
    items, _ = taker.take(micro_batch(clicks([("u", f"n{n}") for n in range(3)]), first_key=300))
    assert (items.expired.tolist(), items.begun.tolist()) == ([], [3, 4, 5])


def test_a_batch_with_more_items_than_there_may_be_is_learned_whole_and_the_rows_are_given_back() -> None:
    taker = Taker(max_items=4)
    taker.take(micro_batch(clicks([("u", "a"), ("u", "b")])))
    items, events = taker.take(micro_batch(clicks([("u", f"i{n}") for n in range(5)]), first_key=10))
    assert taker.ids(items.row) == ["i0", "i1", "i2", "i3", "i4"]
    assert (events.accepted, len(events.item), taker.items.in_use) == (5, 5, 5)
    items, events = taker.take(micro_batch(clicks([("u", f"i{n}") for n in range(4)]), first_key=20))
    assert (events.accepted, taker.items.in_use) == (4, 4)
    assert items.known.all()


@pytest.mark.parametrize("change", [ItemChange("gone", deleted=True), ItemChange("gone", available=False)])
def test_an_item_that_may_not_be_listed_stays_so_when_its_row_went_to_others(change: ItemChange) -> None:
    taker = Taker(max_items=4)
    taker.take(micro_batch(clicks([("u", "gone"), ("u", "kept")]), catalogue=[change]))
    taker.take(micro_batch(clicks([("u", f"i{n}") for n in range(4)]), first_key=10))
    assert taker.items.rows_of(["gone", "kept"]).tolist() == [-1, -1]
    taker.take(micro_batch(clicks([("v", "gone"), ("v", "kept")]), first_key=20))
    assert taker.items.rows_of(["gone", "kept"]).min() >= 0
    assert "gone" not in taker.listable()
    assert "kept" in taker.listable()
    taker.take(micro_batch([], catalogue=[ItemChange("gone")]))
    assert "gone" in taker.listable()


@pytest.mark.parametrize(("remembered", "go"), [(True, ["c", "a"]), (False, ["a", "b"])])
def test_deleted_items_are_the_first_to_make_room(remembered: bool, go: list[str]) -> None:
    """But for models that began when all items were alike: what they had expired is to come out again."""
    taker = Taker(max_items=4)
    taker.items = ItemTable(ItemsConfig(remember_unlisted=remembered))
    for n, item in enumerate(["a", "a", "b", "c"]):
        taker.take(micro_batch(clicks([("u", item)]), first_key=1 + n))
    changes = [ItemChange("c", deleted=True), ItemChange("b", available=False)]
    taker.take(micro_batch(clicks([("u", "d")]), first_key=10, catalogue=changes))
    for n in range(len(go)):
        taker.take(micro_batch(clicks([("u", f"new{n}")]), first_key=20 + n))
        assert taker.items.rows_of(go[: n + 1]).max() < 0
        assert taker.items.in_use == 4


@settings(max_examples=50, deadline=None)
@given(
    batches=st.lists(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=8), max_size=20),
    limit=st.integers(8, 20),
)
def test_within_the_bound_every_item_of_a_batch_has_a_row_of_its_own(
    batches: list[list[tuple[int, bool]]], limit: int
) -> None:
    taker = Taker(max_items=limit)
    for number, batch in enumerate(batches):
        events = clicks([("u", f"i{n}") for n, of_catalogue in batch if not of_catalogue])
        catalogue = [ItemChange(f"i{n}") for n, of_catalogue in batch if of_catalogue]
        before = set(taker.ids(np.arange(taker.items.size)))
        given_batch = micro_batch(events, first_key=1 + 100 * number, catalogue=catalogue)
        items, _ = taker.take(given_batch)
        assert taker.ids(items.row) == list(given_batch.items)
        of_batch = {*given_batch.items, *(change.item_id for change in catalogue)}
        assert set(taker.ids(items.begun)) == of_batch - before
        after = taker.ids(np.arange(taker.items.size))
        assert len(after) == len(set(after)) == taker.items.in_use <= limit
        assert len(before) - len(items.expired) + len(items.begun) == len(after)
        assert all(taker.ids(taker.users.history.array))  # no history refers to a free row


def test_duplicates_are_recognised_in_the_batch_and_among_the_latest_fifty() -> None:
    taker = Taker()
    events = clicks([("u", f"i{n}") for n in range(50)])
    _, first = taker.take(micro_batch([*events, events[0]], keys=[*range(100, 150), 100]))
    assert (first.accepted, first.duplicates) == (50, 1)
    _, again = taker.take(micro_batch(events, keys=range(100, 150)))
    assert (again.accepted, again.duplicates, len(again.item)) == (0, 50, 0)
    _, other = taker.take(micro_batch([("v", "i0", "click")], keys=[100]))
    assert (other.accepted, other.duplicates) == (1, 0)  # the same id from another user is another event
    _, zero = taker.take(micro_batch(clicks([("v", "i1"), ("v", "i2")]), keys=[0, 0]))
    assert (zero.accepted, zero.duplicates) == (1, 1)  # a key of 0 is one like any other


def test_targets_have_an_item_and_a_weight_and_the_clock_counts_the_others_too() -> None:
    taker = Taker()
    kinds = [("u", "a", "click"), ("u", "b", "dislike"), ("u", None, "search"), ("v", "b", "purchase")]
    _, events = taker.take(micro_batch([*kinds, kinds[0], ("u", "c", "view")], keys=[1, 2, 3, 4, 1, 6]))
    assert (events.accepted, events.duplicates) == (5, 1)
    assert taker.ids(events.item) == ["a", "b", "c"]
    assert events.time.tolist() == [0, 3, 4]
    assert events.weight.tolist() == [1.0, 3.0, 1.0]
    assert [taker.ids(history) for history in events.history] == [[], [], ["a"]]
    disliked = events.disliked
    assert (taker.ids(disliked.item), disliked.time.tolist(), disliked.weight.tolist()) == (["b"], [1], [-1.0])
    assert [taker.ids(history) for history in disliked.history] == [["a"]]
    assert events.user_known.tolist() == [False, False, True]
    assert events.item_known.tolist() == [False, True, False]  # b by the dislike before


def test_long_histories_keep_the_latest_items() -> None:
    taker = Taker(length=5)
    for start in range(0, 13, 4):
        pairs = [("u", f"i{n}") for n in range(start, min(start + 4, 13))]
        taker.take(micro_batch(clicks(pairs), first_key=1 + start))
    _, events = taker.take(micro_batch(clicks([("u", "x")]), first_key=100))
    assert taker.ids(events.history[0]) == ["i8", "i9", "i10", "i11", "i12"]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(1, 60))
def test_what_was_before_an_event_does_not_depend_on_where_batches_begin(seed: int, size: int) -> None:
    events, keys = random_events(60, seed, users=6, items=12), list(range(1, 61))
    for at in np.random.default_rng(seed).integers(1, 60, 8).tolist():  # sent twice in a row
        events[at], keys[at] = events[at - 1], keys[at - 1]

    def taken(size: int) -> dict[str, bytes]:
        taker = Taker()
        parts = []
        for at in range(0, 60, size):
            batch = micro_batch(events[at : at + size], keys=keys[at : at + size])
            parts.append(taker.take(dataclasses.replace(batch, ts=1000 * (at + batch.ts)))[1])
        assert taker.clock == len(set(keys))
        columns = {field.name for field in dataclasses.fields(Events)} - {"accepted", "duplicates", "place", "disliked"}
        found = {name: np.concatenate([getattr(part, name) for part in parts]).tobytes() for name in columns}
        for field in dataclasses.fields(Examples):
            column = np.concatenate([getattr(part.disliked, field.name) for part in parts])
            found[f"disliked {field.name}"] = column.tobytes()
        return found

    assert taken(size) == taken(60)


def test_users_beyond_the_bound_are_forgotten_longest_absent_first() -> None:
    taker = Taker(max_users=16)
    for n in range(100):
        taker.take(micro_batch(clicks([(f"u{n}", "a"), ("faithful", "b")]), first_key=1 + 2 * n))
    assert taker.users.size <= 16
    row = taker.users.rows_of(["faithful"], limit=16)[0]
    assert taker.users.counts.array[row, 0] == 100


def test_a_batch_with_more_users_than_there_may_be_is_learned_whole_and_the_rows_are_given_back() -> None:
    taker = Taker(max_users=4)
    _, events = taker.take(micro_batch(clicks([(f"u{n}", "a") for n in range(6)])))
    assert (events.accepted, len(events.user), taker.users.in_use) == (6, 6, 6)
    _, events = taker.take(micro_batch(clicks([("u0", "b"), ("v", "b")]), first_key=10))
    assert (events.accepted, taker.users.in_use) == (2, 4)
    assert events.user_known.tolist() == [True, False]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 5), st.booleans()), max_size=30))
def test_seen_earlier_looks_at_accepted_events_alone(events: list[tuple[int, bool]]) -> None:
    ids = np.array([row for row, _ in events], np.int32)
    accepted = np.array([taken for _, taken in events], np.bool_)
    earlier = [any(accepted[k] and ids[k] == ids[n] for k in range(n)) for n in range(len(ids))]
    assert seen_earlier(ids, accepted).tolist() == earlier
