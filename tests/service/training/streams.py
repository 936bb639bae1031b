"""Micro-batches from lists of (user, item, type), and worlds with a known right answer."""

from collections.abc import Iterator, Sequence

import numpy as np

from consumers.events import DEFAULT_EVENT_WEIGHTS
from consumers.micro_batch import ItemChange, MicroBatch
from model_store.weights import State, Update

TYPES = list(DEFAULT_EVENT_WEIGHTS)
Event = tuple[str, str | None, str]


def micro_batch(
    events: Sequence[Event], first_key: int = 1, keys: Sequence[int] | None = None, catalogue: Sequence[ItemChange] = ()
) -> MicroBatch:
    n = len(events)
    users = list(dict.fromkeys(user for user, _, _ in events))
    items = list(dict.fromkeys(item for _, item, _ in events if item is not None))
    return MicroBatch(
        users=tuple(users),
        items=tuple(items),
        user=np.array([users.index(user) for user, _, _ in events], np.int32),
        item=np.array([-1 if item is None else items.index(item) for _, item, _ in events], np.int32),
        type=np.array([TYPES.index(kind) for _, _, kind in events], np.int16),
        ts=np.arange(n, dtype=np.int64),
        value=np.full(n, np.nan),
        event_key=np.array(range(first_key, first_key + n) if keys is None else keys, np.int64),
        kafka_ts=np.zeros(n, np.int64),
        catalogue=tuple(catalogue),
        ranges=(),
    )


def clicks(pairs: Sequence[tuple[str, str]]) -> list[Event]:
    return [(user, item, "click") for user, item in pairs]


def in_batches(events: Sequence[Event], size: int) -> Iterator[MicroBatch]:
    for start in range(0, len(events), size):
        yield micro_batch(events[start : start + size], first_key=start + 1)


def random_events(n: int, seed: int, users: int = 40, items: int = 60) -> list[Event]:
    """Any user, any item, popular ones more often; some dislikes and searches between."""
    rng = np.random.default_rng(seed)
    item = (items * rng.random(n) ** 2).astype(int)
    kinds = rng.choice(["click", "purchase", "dislike", "search"], n, p=[0.8, 0.1, 0.05, 0.05])
    return [
        (f"u{u}", None if kind == "search" else f"i{i}", str(kind))
        for u, i, kind in zip(rng.integers(users, size=n), item, kinds, strict=True)
    ]


def world_of_classes(n: int, seed: int, users: int = 300, classes: int = 10, per_class: int = 10) -> list[Event]:
    """Each user likes one class of items and clicks nothing else: item "c3-7" is of class 3, user u of u % classes."""
    rng = np.random.default_rng(seed)
    user = rng.integers(users, size=n)
    return clicks(
        [(f"u{u}", f"c{u % classes}-{i}") for u, i in zip(user, rng.integers(per_class, size=n), strict=True)]
    )


def state_of(update: Update) -> State:
    state = State()
    state.apply(update)
    return state


def assert_same(left: Update, right: Update) -> None:
    """The same bits, name by name."""
    assert left.full == right.full
    assert left.tables.keys() == right.tables.keys()
    assert left.tensors.keys() == right.tensors.keys()
    for name, rows in left.tables.items():
        other = right.tables[name]
        assert rows.size == other.size, name
        assert rows.index.tobytes() == other.index.tobytes(), name
        if isinstance(rows.values, list):
            assert rows.values == other.values, name
        else:
            assert not isinstance(other.values, list)
            assert rows.values.tobytes() == other.values.tobytes(), name
    for name, tensor in left.tensors.items():
        assert tensor.tobytes() == right.tensors[name].tobytes(), name
