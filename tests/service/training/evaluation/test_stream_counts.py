"""What came before each event, by hand, by the learner's own rule, and wherever batches are cut."""

from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.model.history import LATEST, HistoryRule
from service.training.evaluation.slices import SLICES, names_of, slices_of
from service.training.evaluation.stream_counts import Before, StreamCounts
from service.training.learner import Learner
from tests.service.model.configs import small
from tests.service.training.streams import TYPES, Event, micro_batch

RULE = HistoryRule.of(small().history)


class Given(NamedTuple):
    """An event with its key; without one it has no `event_id`."""

    event: Event
    key: int | None


def taken(stream: list[Given], sizes: list[int]) -> list[Before]:
    """The stream in batches of these sizes, and one of the rest."""
    counts, found, start = StreamCounts(RULE), [], 0
    for size in [*sizes, len(stream)]:
        part = stream[start : start + size]
        keys = [each.key or -start - k - 1 for k, each in enumerate(part)]
        has_id = np.array([each.key is not None for each in part], np.bool_)
        found.append(counts.take(micro_batch([each.event for each in part], keys=keys), has_id))
        start += size
    return found


def column(found: list[Before], name: str) -> list[int]:
    return [int(value) for each in found for value in getattr(each, name)]


def test_slices_by_hand() -> None:
    events: list[tuple[Event, set[str]]] = [
        (("u", "a", "click"), {"items_0", "novel", "history_0_1"}),
        (("u", "b", "click"), {"items_0", "novel", "new_users", "history_0_1"}),
        (("u", None, "search"), {"items_0", "novel", "new_users", "history_2"}),  # no target, and never ranked
        (("u", "a", "view"), {"items_1_4", "repeated", "history_2"}),
        (("v", "a", "dislike"), {"items_1_4", "novel", "history_0_1"}),
        (("v", "a", "click"), {"items_1_4", "repeated", "new_users", "history_0_1"}),
        (("v", "b", "click"), {"items_1_4", "novel", "new_users", "history_0_1"}),
        (("w", "a", "click"), {"items_1_4", "novel", "history_0_1"}),
        (("v", "a", "click"), {"items_5_up", "repeated", "history_2"}),
        (("u", "c", "click"), {"items_0", "novel", "history_3_4"}),
        (("u", "d", "click"), {"items_0", "novel", "history_3_4"}),
        (("u", "e", "click"), {"items_0", "novel", "history_5_8"}),
    ]
    (found, _) = taken([Given(event, None) for event, _ in events], [len(events)])
    bits = slices_of(found, np.arange(len(events)))
    assert [set(names_of(each)) for each in bits.tolist()] == [names for _, names in events]
    assert slices_of(found, np.array([8])).tolist() == bits[8:9].tolist()


def test_every_event_is_in_one_slice_of_each_kind() -> None:
    events = np.arange(12)
    ones = np.ones(12, np.bool_)
    before = Before(ones, ones.astype(np.float64), events, events, events, events, events, events % 2 == 1)
    for kind in ("items_", "history_"):
        bits = slices_of(before, events)
        chosen = [k for k, each in enumerate(SLICES) if each.name.startswith(kind)]
        assert all(sum(bit >> k & 1 for k in chosen) == 1 for bit in bits.tolist())


EVENTS = st.tuples(
    st.sampled_from("uv"),
    st.sampled_from("abc"),
    st.sampled_from(["click", "click", "dislike", "search"]),
)
STREAMS = st.lists(
    st.builds(
        lambda event, key: Given((event[0], None if event[2] == "search" else event[1], event[2]), key),
        EVENTS,
        st.one_of(st.none(), st.integers(1, 8)),
    ),
    max_size=40,
)


def by_definition(stream: list[Given]) -> dict[str, list[int]]:
    """Event by event, with dicts."""
    latest: dict[str, list[int | None]] = defaultdict(list)
    users, items, targets, pairs = Counter[str](), Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    found: dict[str, list[int]] = defaultdict(list)
    for (user, item, kind), key in stream:
        accepted = key is None or key not in latest[user][-LATEST:]
        found["accepted"].append(accepted)
        found["user_events"].append(users[user])
        found["history"].append(targets[user])
        found["item_events"].append(0 if item is None else items[item])
        found["repeated"].append(item is not None and pairs[user, item] > 0)
        if accepted:
            latest[user].append(key)
            users[user] += 1
            if item is not None:
                items[item] += 1
                pairs[user, item] += 1
                targets[user] += kind == "click"
    return found


@given(STREAMS, st.lists(st.integers(0, 9), max_size=8))
def test_counts_are_those_of_the_definition_wherever_batches_are_cut(stream: list[Given], sizes: list[int]) -> None:
    found, wanted = taken(stream, sizes), by_definition(stream)
    for name, values in wanted.items():
        assert column(found, name) == values, name


@given(st.integers(1, 150), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_redeliveries_are_those_that_the_learner_leaves_out(distance: int, size: int, seed: int) -> None:
    """Events that come again at about the distance up to which they are recognised."""
    rng = np.random.default_rng(seed)
    stream = [Given(("u", "a", "click"), k + 1 if rng.random() < 0.9 else None) for k in range(100)]
    stream = [*stream, *stream[-distance:], *stream[-distance // 2 :]]
    sizes = [size] * (len(stream) // size)
    learner, start = Learner(small(), evaluate_sample=0), 0
    for before, many in zip(taken(stream, sizes), [*sizes, len(stream)], strict=True):
        part = stream[start : start + many]
        keys = [each.key or -start - k - 1 for k, each in enumerate(part)]
        assert int(before.accepted.sum()) == learner.learn(micro_batch([e.event for e in part], keys=keys)).n_events
        start += many


def test_weights_are_by_the_rule() -> None:
    found, _ = taken([Given(("u", "a", kind), None) for kind in TYPES], [len(TYPES)])
    assert found.weight.tolist() == list(RULE.event_weights.values())
