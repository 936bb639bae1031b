"""Neighbour rows beside a plain model of what their docstring says: lists of slots that fade, row by row."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.weights import Update
from service.model.neighbour_rows import TOUCHED, NeighbourRows
from tests.service.training.streams import assert_same

ITEMS, REACH, BACKWARD = 9, 4, 0.5
CLOSE = 1e-4  # two weights nearer to each other than this part: float32 may take the other one for the weaker


class Ambiguous(Exception):
    """Rounding decides which slot goes."""


@dataclass
class Slot:
    item: int
    weight: list[float]  # forward and backward

    @property
    def whole(self) -> float:
        return self.weight[0] + BACKWARD * self.weight[1]


@dataclass
class PlainRows:
    slots: int
    half_life: float
    rows: dict[int, list[Slot]] = field(default_factory=lambda: defaultdict(list))
    received: dict[int, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0]))

    def event(self, y: int, weight: float, history: Sequence[int]) -> None:
        for distance, x in enumerate(reversed(history), 1):
            if weight < 0:
                for slot in self.rows[x]:
                    if slot.item == y:
                        slot.weight[0] = max(0.0, slot.weight[0] + weight / distance)
                continue
            self._add(x, y, weight / distance, 0)
            if x != y:
                self._add(y, x, weight / distance, 1)

    def _add(self, x: int, y: int, amount: float, way: int) -> None:
        row, fade = self.rows[x], 0.5 ** (amount * (1.0, BACKWARD)[way] / self.half_life)
        for weights in [slot.weight for slot in row] + [self.received[x]]:
            weights[:] = [fade * weight for weight in weights]
        self.received[x][way] += amount
        for slot in row:
            if slot.item == y:
                slot.weight[way] += amount
                return
        new = Slot(y, [0.0, 0.0])
        new.weight[way] = amount
        if len(row) < self.slots:
            row.append(new)
            return
        comes, (least, second) = new.whole, sorted(slot.whole for slot in row)[:2]
        if min(second - least, abs(comes - least)) <= CLOSE * max(second, comes):
            raise Ambiguous
        place = min(range(len(row)), key=lambda n: row[n].whole)
        if least <= comes:
            row[place] = new
        else:
            row[place].weight = [weight * (least - comes) / least for weight in row[place].weight]

    def forget(self, gone: Sequence[int]) -> None:
        for x in gone:
            self.rows.pop(x, None)
            self.received.pop(x, None)
        for row in self.rows.values():
            at = 0
            while at < len(row):  # a row's last slot fills a gap
                if row[at].item in gone:
                    last = row.pop()
                    if at < len(row):
                        row[at] = last
                else:
                    at += 1


def made(slots: int = 4, half_life: float = 20.0) -> NeighbourRows:
    rows = NeighbourRows(slots, half_life, BACKWARD)
    rows.resize(ITEMS)
    return rows


def learn(rows: NeighbourRows, events: "Sequence[Event]") -> None:
    history = np.full((len(events), REACH), -1, np.int32)
    for n, (_, _, before) in enumerate(events):
        history[n, REACH - len(before) :] = before
    item = np.array([event[0] for event in events], np.int64)
    weight = np.array([event[1] for event in events], np.float64)
    rows.learn(item, weight, history)


def slots_of(rows: NeighbourRows, x: int) -> list[tuple[int, float, float]]:
    first, _, used = rows.place.array[x].tolist()
    scale = float(rows.mass.array[x, 2])
    return [
        (int(rows.item.array[j]), float(rows.weight.array[j, 0]) / scale, float(rows.weight.array[j, 1]) / scale)
        for j in range(first, first + used)
    ]


def contents(rows: NeighbourRows) -> dict[int, list[tuple[int, float, float]]]:
    return {x: slots_of(rows, x) for x in range(ITEMS)}


def assert_is(rows: NeighbourRows, plain: PlainRows) -> None:
    for x in range(ITEMS):
        found, wanted = slots_of(rows, x), plain.rows[x]
        assert [item for item, _, _ in found] == [slot.item for slot in wanted], x
        weights = [weight for slot in wanted for weight in slot.weight]
        assert [w for _, *both in found for w in both] == pytest.approx(weights, rel=1e-3, abs=1e-5)
        forward, backward, scale = rows.mass.array[x].astype(float).tolist()
        assert [forward, backward] == pytest.approx([scale * part for part in plain.received[x]], rel=1e-3, abs=1e-5)


def assert_tidy(rows: NeighbourRows) -> None:
    """Extents of rows overlap neither each other nor what is free, and a slot that no row uses is empty."""
    owner = np.full(rows.item.size, -1)
    for x, (first, size, used) in enumerate(rows.place.array[: rows.place.size].tolist()):
        assert used <= size
        assert size in {0, *rows.sizes}
        assert (owner[first : first + size] == -1).all()
        owner[first : first + size] = x
        unused = slice(first + used, first + size)
        assert (rows.item.array[unused] == -1).all()
        assert (rows.item.array[first : first + used] >= 0).all()
    assert (rows.item.array[: rows.item.size][owner == -1] == -1).all()
    assert (rows.weight.array[: rows.item.size][rows.item.array[: rows.item.size] == -1] == 0).all()
    for size, free in rows._free.items():
        assert (np.diff(free) > 0).all()
        for first in free.tolist():
            assert (owner[first : first + size] == -1).all()
            owner[first : first + size] = ITEMS
    assert (owner >= 0).all()  # every slot belongs to a row or is free


Event = tuple[int, float, list[int]]  # item, weight, history
ROWS = st.integers(0, ITEMS - 1)
EVENT = st.tuples(ROWS, st.sampled_from([1.0, 2.0, 0.7, -1.0]), st.lists(ROWS, max_size=REACH))
STEPS = st.lists(st.one_of(st.lists(EVENT, min_size=1, max_size=8), st.sets(ROWS, min_size=1, max_size=3)), max_size=12)


def taken(rows: NeighbourRows, steps: Sequence[list[Event] | set[int]]) -> Iterator[list[Event] | set[int]]:
    """Takes each step: events to learn, or rows to forget."""
    for step in steps:
        if isinstance(step, set):
            rows.forget(np.array(sorted(step), np.int64))
        else:
            learn(rows, step)
        yield step


@settings(max_examples=150)
@given(steps=STEPS, slots=st.sampled_from([4, 8]), half_life=st.sampled_from([3.0, 20.0, 300.0]))
def test_rows_are_what_the_docstring_says(steps: list[list[Event] | set[int]], slots: int, half_life: float) -> None:
    rows, plain = made(slots, half_life), PlainRows(slots, half_life)
    for step in taken(rows, steps):
        try:
            if isinstance(step, set):
                plain.forget(sorted(step))
            else:
                for event in step:
                    plain.event(*event)
        except Ambiguous:
            return
        assert_is(rows, plain)
        assert_tidy(rows)


@given(events=st.lists(EVENT, min_size=1, max_size=40), size=st.integers(1, 9))
def test_where_batches_are_cut_makes_no_difference(events: list[Event], size: int) -> None:
    whole, cut = made(), made()
    learn(whole, events)
    for start in range(0, len(events), size):
        learn(cut, events[start : start + size])
    assert contents(cut) == contents(whole)


@given(before=STEPS, after=STEPS)
def test_restored_it_gives_out_the_same_extents(
    before: list[list[Event] | set[int]], after: list[list[Event] | set[int]]
) -> None:
    unkilled = made(8)
    for _ in taken(unkilled, before):
        pass
    mortal = made(8)
    for table, other in zip(mortal.tables, unkilled.tables, strict=True):
        table.load(np.asarray(other.snapshot().values))
        other.drain()
    mortal.restored()
    for _ in zip(taken(unkilled, after), taken(mortal, after), strict=True):
        assert_same(
            *(Update(False, {table.name: table.drain() for table in of.tables}, {}) for of in (unkilled, mortal))
        )


def test_a_row_grows_to_its_limit_and_then_the_weakest_goes() -> None:
    rows = made(slots=8, half_life=1e9)
    sizes = []
    for y in range(1, ITEMS):
        learn(rows, [(y, float(y), [0])])
        sizes.append(int(rows.place.array[0, 1]))
    assert sizes == [4, 4, 4, 4, 8, 8, 8, 8]
    assert {item for item, _, _ in slots_of(rows, 0)} == set(range(1, 9))
    learn(rows, [(0, 0.25, [0])])  # weaker than the weakest, item 1: that one loses what comes
    assert slots_of(rows, 0)[0] == pytest.approx((1, 0.75, 0.0))
    learn(rows, [(0, 2.0, [0])])  # stronger: it takes the place
    assert slots_of(rows, 0)[0] == pytest.approx((0, 2.0, 0.0))


def test_weights_halve_while_the_row_receives_a_half_life() -> None:
    rows = made(half_life=10.0)
    learn(rows, [(1, 1.0, [0]), *[(2, 1.0, [0])] * 10])
    assert slots_of(rows, 0)[0] == pytest.approx((1, 0.5, 0.0))


def test_weights_are_scaled_down_long_before_they_overflow() -> None:
    """Half-lives enough for 2^1000: the weights stay those of the latest ones."""
    rows = made(half_life=1.0)
    for _ in range(10):
        learn(rows, [(2, 1.0, [0])] * 100)
    assert np.isfinite(rows.weight.array).all()
    assert np.isfinite(rows.mass.array).all()
    (only,) = slots_of(rows, 0)
    assert only == pytest.approx((2, 2.0, 0.0), rel=1e-3)  # 1 + 1/2 + 1/4 + ...


def test_a_dislike_takes_transitions_back_down_to_nothing() -> None:
    rows = made(half_life=1e9)
    learn(rows, [(1, 3.0, [0]), (1, -1.0, [0])])
    assert slots_of(rows, 0)[0] == pytest.approx((1, 2.0, 0.0))
    learn(rows, [(1, -9.0, [0]), (2, -1.0, [0])])  # more than there is, and one that never was
    assert slots_of(rows, 0) == [(1, 0.0, 0.0)]


def test_a_transition_to_itself_is_forward_alone() -> None:
    rows = made(half_life=1e9)
    learn(rows, [(3, 1.0, [3])])
    (only,) = slots_of(rows, 3)
    assert only == pytest.approx((3, 1.0, 0.0))
    assert rows.mass.array[3].tolist() == pytest.approx([1.0, 0.0, 1.0])


def test_only_what_an_event_writes_travels() -> None:
    rows = made()
    learn(rows, [(y, 1.0, [x]) for x in range(ITEMS) for y in range(4)])
    for table in rows.tables:
        table.drain()
    learn(rows, [(1, 1.0, [0])])
    touched = {table.name: len(table.drain().index) for table in rows.tables}
    assert touched["neighbours/place"] == touched["neighbours/mass"] == 2
    assert touched["neighbours/item"] == touched["neighbours/weight"] <= 2
    assert touched["trainer/neighbours/page"] == 0


def test_one_event_may_touch_more_slots_than_are_noted_at_once() -> None:
    reach = TOUCHED // 4096 + 1
    rows = NeighbourRows(2048, 20.0, BACKWARD)
    rows.resize(reach + 1)
    history = np.arange(reach, dtype=np.int32)[None]
    rows.learn(np.array([reach]), np.ones(1), history)
    assert rows.place.array[: reach + 1, 2].tolist() == [1] * reach + [reach]
