"""What a stream held before each of its events: counted by the evaluation itself, whatever the model keeps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumers.micro_batch import MicroBatch
from service.model.history import LATEST, HistoryRule
from service.training.evaluation.int_map import IntMap
from service.training.user_table import rank_within

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Before:
    """Of the n events of a micro-batch, what came before each in the stream. Redelivered events count for nothing."""

    accepted: NDArray[np.bool_]  # [n] not a redelivery
    weight: NDArray[np.float64]  # [n] by the rule for histories; the accepted ones above 0 with an item are targets
    user: Index  # [n] the user's number: users are numbered as they appear, from 0
    item: Index  # [n] the item's; -1 where the event has none
    user_events: Index  # [n] events of the same user
    item_events: Index  # [n] events on the same item
    history: Index  # [n] targets of the same user: the length of a history without bound
    repeated: NDArray[np.bool_]  # [n] the user had an event on this item


class StreamCounts:
    """Takes a stream batch by batch. Where batches are cut makes no difference: an event's counts are of all the events
    before it, in the same batch too."""

    def __init__(self, rule: HistoryRule) -> None:
        self._rule = rule
        self.users, self.items = Numbering(), Numbering()
        self._user_events, self._item_events, self._targets = Counts(), Counts(), Counts()
        self._pairs = IntMap()  # user and item -> 1
        self._keys = IntMap()  # user and event key -> the number of the user's event that had it last, from 1

    def take(self, batch: MicroBatch, has_id: NDArray[np.bool_]) -> Before:
        """`has_id` [n]: whether the event has an `event_id`; others cannot come twice."""
        user = self.users.of(batch.users)[batch.user]
        item = np.append(self.items.of(batch.items), -1)[batch.item]  # item -1 indexes the last entry
        weight = self._rule.weights(batch.type, batch.value)
        accepted = self._accepted(user, batch.event_key, has_id)
        with_item = np.flatnonzero(item >= 0)
        counted = accepted[with_item]
        item_events, repeated = np.zeros(len(user), np.int64), np.zeros(len(user), np.bool_)
        item_events[with_item] = self._item_events.add(item[with_item], counted)
        repeated[with_item] = self._had(user[with_item] << 32 | item[with_item], counted)
        return Before(
            accepted=accepted,
            weight=weight,
            user=user,
            item=item,
            user_events=self._user_events.add(user, accepted),
            item_events=item_events,
            history=self._targets.add(user, accepted & (weight > 0) & (item >= 0)),
            repeated=repeated,
        )

    def _had(self, pair: Index, counted: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """[n] whether each pair [n] came before; the counted ones are remembered."""
        before: NDArray[np.bool_] = self._pairs.get(pair) + rank_within(pair, counted) > 0
        new = pair[counted & ~before]
        self._pairs.put(new, np.ones(len(new), np.int64))
        return before

    def _accepted(self, user: Index, event_key: Index, has_id: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """[n] by the rule of `service/model/history.py`: an event is a redelivery if its key is among those of its
        user's LATEST accepted events."""
        n = len(user)
        accepted = np.ones(n, np.bool_)
        named = np.flatnonzero(has_id)
        if not len(named):
            return accepted
        key = event_key[named] ^ (user[named] * np.int64(0x1E3779B97F4A7C15))  # of two users they differ
        number = self._keys.get(key)
        events = self._user_events.of(user)
        if not number.any() and len(np.unique(key)) == len(key):
            self._keys.put(key, (events + rank_within(user, accepted))[named] + 1)
            return accepted
        last = dict(zip(key.tolist(), number.tolist(), strict=True))
        so_far = dict(zip(user.tolist(), events.tolist(), strict=True))
        keys: list[int | None] = [None] * n
        for place, each in zip(named.tolist(), key.tolist(), strict=True):
            keys[place] = each
        for place, (who, each) in enumerate(zip(user.tolist(), keys, strict=True)):
            if each is not None:
                if last[each] and so_far[who] - last[each] < LATEST:
                    accepted[place] = False
                    continue
                last[each] = so_far[who] + 1
            so_far[who] += 1
        self._keys.put(np.fromiter(last.keys(), np.int64, len(last)), np.fromiter(last.values(), np.int64, len(last)))
        return accepted


class Numbering:
    """Ids, numbered from 0 as they appear."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def ids(self) -> list[str]:
        """By number."""
        return list(self._numbers)

    def of(self, ids: Sequence[str]) -> Index:
        """[n] their numbers; new ids get the next ones."""
        numbers = self._numbers
        found = list(map(numbers.get, ids))
        if None in found:
            found = [numbers.setdefault(each, len(numbers)) for each in ids]
        return np.array(found, np.int64)


class Counts:
    """How many events each group has had."""

    def __init__(self) -> None:
        self._counts = np.zeros(1024, np.int32)

    def of(self, group: Index) -> Index:
        """[n] so far."""
        self._make_room(group)
        return self._counts[group].astype(np.int64)

    def add(self, group: Index, counted: NDArray[np.bool_]) -> Index:
        """[n] how many counted events of the same group came before each event [n]; then these are counted."""
        before = self.of(group) + rank_within(group, counted)
        self._counts[group[counted]] = (
            before[counted] + 1
        )  # of the same group the last one counts, which has most before
        return before

    def _make_room(self, group: Index) -> None:
        if (most := int(group.max(initial=-1)) + 1) > len(self._counts):
            self._counts = np.concatenate([self._counts, np.zeros(most, np.int32)])
