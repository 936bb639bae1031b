"""The one rule for histories: the trainer and the scorers make the same history of the same events.

The trainer applies it to the columns of a micro-batch (`training/intake.py`, `training/user_table.py`), a scorer to one
event at a time (`scoring/user_history.py`); `tests/service/test_histories_agree.py` holds the two together.

* An event is a duplicate if its key is among those of its user's `LATEST` accepted events; it then changes nothing.
  Every accepted event counts, whatever its type, with or without an `event_id`.
* The weight of an accepted event decides what becomes of its item. Above 0 the user wanted the item: it joins the
  history and is a target to learn from. Below 0 the user disliked it: it is not listed for that user until they want it
  again. At 0 nothing follows. An event without an item joins no history.
* A history is the user's latest `length` items, in the order of the events, repeats included.

A history holds the item of each event, not its type or time, nor the text of a `search`.
"""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumers.events import DEFAULT_EVENT_WEIGHTS, Interaction
from service.model.config import HistoryConfig

# Duplicates are recognised among this many of a user's latest accepted events; the contract promises 50
LATEST = 64

RATING, DISLIKE, PURCHASE = "rating", "dislike", "purchase"

# A rating just above the lowest third has this share of its type's weight: none is so small that it vanishes in floats
LEAST_LIKED = 1e-3

NO_KEY = 0
"""Not the key of any event: it marks an empty slot, or that of an event that cannot come twice."""


def key_of(digest: bytes) -> int:
    """An event's key, from `consumers.batcher.event_digest`: an int64."""
    return int.from_bytes(digest, "little", signed=True) or 1


def keys_of(event_key: NDArray[np.int64]) -> NDArray[np.int64]:
    """[n] the keys of a batch's events, from `MicroBatch.event_key`: those that `key_of` gives."""
    return np.where(event_key == NO_KEY, 1, event_key)


def accept(latest: "array[int]", key: int) -> bool:
    """Whether an event is accepted; False for a duplicate, which changes nothing.

    `latest` (type code "q"): the keys of its user's latest accepted events, latest last. The key of an accepted event
    is added to them. NO_KEY is never a duplicate, and takes a place among the latest like any other key.
    """
    if key != NO_KEY and key in latest:
        return False
    latest.append(key)
    del latest[:-LATEST]
    return True


@dataclass(frozen=True, slots=True)
class HistoryRule:
    """What a configuration says of histories, and the weight of each event by it.

    With a `rating_scale` the value of a `rating` says how much the item was liked. A rating in the lowest third of the
    scale, the upper bound of that third included, counts as a `dislike`. Above the bound the weight grows linearly:
    from nothing at the bound to the weight of the type at the top of the scale. A value beyond the scale counts as the
    scale's end. A rating without a value has the weight of the type.

    >>> rule = HistoryRule(20, {"rating": 2.0, "dislike": -1.0}, rating_scale=(1, 5))
    >>> rule.weights(np.zeros(6, np.int16), np.array([1, 2, 3, 4, 5, np.nan])).round(2).tolist()
    [-1.0, -1.0, 0.5, 1.25, 2.0, 2.0]
    """

    length: int  # items
    event_weights: Mapping[str, float]  # of the accepted event types; their order numbers `MicroBatch.type`
    rating_scale: tuple[float, float] | None = None  # lowest and highest value; None: every rating counts alike

    @classmethod
    def of(cls, config: HistoryConfig) -> "HistoryRule":
        return cls(config.length, config.event_weights, config.rating_scale)

    def weight(self, event: Interaction) -> float:
        """The weight of one event; 0 for a type that is not accepted: an earlier version's rule may have accepted
        it."""
        if event.type not in self.event_weights:
            return 0.0
        if event.type == RATING and event.value is not None and self.rating_scale is not None:
            return float(self._rated(np.array(event.value), self.rating_scale))
        return self.event_weights[event.type]

    def weights(self, types: NDArray[np.int16], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """[n] the weights of a batch's events. `types` [n] and `values` [n]: the columns of a `MicroBatch`.

        Raises: IndexError for a type that has no weight.
        """
        weights = np.array(list(self.event_weights.values()), np.float64)[types]
        if self.rating_scale is not None and RATING in self.event_weights:
            rated = (types == list(self.event_weights).index(RATING)) & ~np.isnan(values)
            weights[rated] = self._rated(values[rated], self.rating_scale)
        return weights

    def _rated(self, values: NDArray[np.float64], scale: tuple[float, float]) -> NDArray[np.float64]:
        low, high = scale
        boundary = low + (high - low) / 3
        share = np.clip((np.clip(values, low, high) - boundary) / (high - boundary), LEAST_LIKED, 1.0)
        disliked = self.event_weights.get(DISLIKE, DEFAULT_EVENT_WEIGHTS[DISLIKE])
        weights: NDArray[np.float64] = np.where(values > boundary, self.event_weights[RATING] * share, disliked)
        return weights
