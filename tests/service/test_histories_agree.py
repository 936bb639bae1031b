"""The same events give trainer and scorer the same history."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from consumers.batcher import MicroBatcher
from consumers.decode import DecodeRules, decode
from consumers.records import Record, TopicPartition
from service.model.config import ItemsConfig
from service.model.history import LATEST, HistoryRule
from service.model.item_table import ItemTable
from service.model.query import NOT_KNOWN
from service.scoring.user_history import UserHistory, decode_history
from service.training.intake import take_events, take_items
from service.training.user_table import UserTable
from tests.consumers.samples import NOW_MS, event_json

ITEMS = ItemsConfig(remember_unlisted=True)

STAMP = b"0123456789abcdef"
WEIGHTS = {"view": 1.0, "purchase": 3.0, "open": 0.0, "dislike": -1.0, "rating": 2.0, "search": 0.5}
SCALES = [None, (1.0, 5.0), (-2.0, 1.0)]


@dataclass
class Sent:
    """What producers have sent, in order: one user's events are in one partition."""

    records: list[Record] = field(default_factory=list)

    def send(self, user: str, item: str | None, kind: str, event_id: str | None, value: float | None = None) -> None:
        ts = NOW_MS - 1_000 * (len(self.records) * 7 % 50)  # times are no order
        fields = {"item_id": item, "event_id": event_id, "value": value, "ts": ts}
        given_fields = {name: ... if given is None else given for name, given in fields.items()}
        raw = event_json(user_id=user, type=kind, **given_fields)
        partition = ord(user) % 2
        offset = sum(record.partition == partition for record in self.records)
        self.records.append(Record("events", partition, offset, NOW_MS, user.encode(), raw))


@st.composite
def streams(draw: st.DrawFn) -> list[Record]:
    """Single events, some of them with an id that was sent before, and runs of one user's that move their window on."""
    sent, number = Sent(), 0
    ids: list[str] = []
    for _ in range(draw(st.integers(0, 12))):
        user = draw(st.sampled_from("abc"))
        kind = draw(st.sampled_from(list(WEIGHTS)))
        named, again = draw(st.booleans()), draw(st.booleans())
        value = draw(st.sampled_from([None, -9.0, -1.0, 1.0, 1 + 4 / 3, 3.0, 5.0, 9.0]))
        item = None if kind == "search" and draw(st.booleans()) else draw(st.sampled_from(["i1", "i2", "é", "i4"]))
        for _ in range(draw(st.sampled_from([1, 1, 2, 5, LATEST - 1, LATEST, LATEST + 1]))):
            number += 1
            event_id = f"e{number}" if named else None
            if named and again and ids:
                event_id = draw(st.sampled_from(ids))
            elif event_id is not None:
                ids.append(event_id)
            sent.send(user, item, kind, event_id, value)
    return sent.records


class Recording(UserTable):
    """Keeps what was called a duplicate."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.called: list[bool] = []

    def duplicates(self, user: NDArray[np.int64], key: NDArray[np.int64]) -> NDArray[np.bool_]:
        found = super().duplicates(user, key)
        self.called += found.tolist()
        return found


Lesson = tuple[str, float, tuple[str, ...]]
"""An item that was wanted or not, by how much, and what its user had done before."""


@dataclass
class Outcome:
    """Of a stream, by one side."""

    items: dict[str, list[str]] = field(default_factory=dict)  # by user
    seen: dict[str, int] = field(default_factory=dict)
    duplicates: dict[tuple[int, int], bool] = field(default_factory=dict)  # by partition and offset
    lessons: list[Lesson] = field(default_factory=list)  # sorted
    last: dict[str, int | None] = field(default_factory=dict)  # by user: `ts` of the latest item of the history


def trained(records: list[Record], rule: HistoryRule, batch_events: int) -> Outcome:
    """The trainer's intake, in micro-batches."""
    types = list(rule.event_weights)
    batcher = MicroBatcher(batch_events, 1e9, types, lambda: 0.0)
    batches = batcher.add(decode(records, DecodeRules(event_types=rule.event_weights), NOW_MS))
    batches += [last for last in [batcher.flush()] if last is not None]
    items, users, clock = ItemTable(ITEMS), Recording(rule.length), 0
    outcome = Outcome()
    for batch in batches:
        taken = take_items(items, batch, clock, None)
        events = take_events(users, batch, taken, rule.weights(batch.type, batch.value), clock, None)
        clock += events.accepted
        for part in (events, events.disliked):
            for item, weight, history in zip(part.item, part.weight.tolist(), part.history, strict=True):
                before = tuple(items.names.ids[row] for row in history if row >= 0)
                outcome.lessons.append((items.names.ids[item], weight, before))
        places = [(one.partition, offset) for one in batch.ranges for offset in range(one.start, one.end)]
        outcome.duplicates.update(zip(places, users.called, strict=True))
        users.called.clear()
    for row, user in enumerate(users.names.ids):
        outcome.seen[user], targets, _ = users.counts.array[row].tolist()
        ring = users.history.array[row * rule.length : (row + 1) * rule.length]
        oldest_first = np.roll(ring, -(targets % rule.length))
        last = float(users.last.array[row])
        outcome.last[user] = None if last == NOT_KNOWN else round(1_000 * last)
        outcome.items[user] = [items.names.ids[item] for item in oldest_first.tolist() if item >= 0]
    outcome.lessons.sort()
    return outcome


def scored(records: list[Record], rule: HistoryRule, store_every: int) -> Outcome:
    """A scorer's histories, event by event; now and then stored and read again."""
    histories: dict[str, UserHistory] = {}
    outcome = Outcome()
    events = decode(records, DecodeRules(WEIGHTS), NOW_MS).events
    for number, (record, event) in enumerate(zip(records, events, strict=True)):
        history = histories.setdefault(event.user_id, UserHistory())
        where = TopicPartition(record.topic, record.partition)
        before, weight = tuple(history.items), rule.weight(event)
        new = history.take(event, where, record.offset, record.timestamp_ms, rule=rule, hide="none")
        outcome.duplicates[record.partition, record.offset] = not new
        if new and weight and event.item_id is not None:
            outcome.lessons.append((event.item_id, weight, before))
            assert (event.item_id in history.disliked) == (weight < 0)
        if number % store_every == 0:
            histories[event.user_id] = decode_history(history.encode(STAMP))[1]
    outcome.last = {user: history.last_item_ms for user, history in histories.items()}
    outcome.items = {user: history.items for user, history in histories.items()}
    outcome.lessons.sort()
    outcome.seen = {user: history.events_seen for user, history in histories.items()}
    return outcome


@settings(max_examples=150, deadline=None)
@given(streams(), st.integers(1, 30), st.sampled_from(SCALES), st.integers(1, 200), st.integers(1, 50))
def test_the_same_events_give_trainer_and_scorer_the_same_history(
    records: list[Record], length: int, scale: tuple[float, float] | None, batch_events: int, store_every: int
) -> None:
    rule = HistoryRule(length, WEIGHTS, scale)
    assert trained(records, rule, batch_events) == scored(records, rule, store_every)


@pytest.mark.parametrize("batch_events", [1, 7, 1000])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("between", [0, 1, LATEST - 1, LATEST, LATEST + 1, 3 * LATEST])
def test_a_duplicate_is_recognised_among_the_latest_events_with_or_without_an_id(
    between: int, named: bool, batch_events: int
) -> None:
    sent = Sent()
    sent.send("a", "i1", "view", "e0")
    for n in range(between):
        sent.send("a", "i2", "dislike", f"e{n + 1}" if named else None)
    sent.send("a", "i1", "view", "e0")
    rule = HistoryRule(5, WEIGHTS)
    by_trainer, by_scorer = trained(sent.records, rule, batch_events), scored(sent.records, rule, 10)
    assert by_trainer == by_scorer
    assert list(by_scorer.duplicates.values())[-1] == (between < LATEST)
    assert by_scorer.items == {"a": ["i1"] if between < LATEST else ["i1", "i1"]}
