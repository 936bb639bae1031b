"""The one rule for histories: the trainer and the scorers make the same history of the same events.

The trainer applies it to the columns of a micro-batch (`training/intake.py`, `training/user_table.py`), a scorer to one
event at a time (`scoring/user_history.py`); `tests/service/test_histories_agree.py` holds the two together.

* An event is a duplicate if its key is among those of its user's `LATEST` accepted events; it then changes nothing.
  Every accepted event counts, whatever its type, with or without an `event_id`.
* What the weight of an accepted event says: above 0, that its user wanted the item, which joins the history and is a
  target to learn from; below 0, that they did not; 0, nothing. An event without an item joins no history.
* A history is the user's latest `length` items, in the order of the events, repeats included.

Of an event that joins, both sides keep the item. Its type and time, and the text of a `search`, would be further
columns beside it, once something reads them.
"""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumers.events import Interaction
from service.model.config import HistoryConfig

# Duplicates are recognised among this many of a user's latest accepted events; the contract promises 50
LATEST = 64

NO_KEY = 0
"""No event's key: it marks a slot that is empty, or that of an event that cannot be met again."""


def key_of(digest: bytes) -> int:
    """An event's key, from `consumers.batcher.event_digest`: an int64."""
    return int.from_bytes(digest, "little", signed=True) or 1


def keys_of(event_key: NDArray[np.int64]) -> NDArray[np.int64]:
    """[n] the keys of a batch's events, from `MicroBatch.event_key`: those that `key_of` gives."""
    return np.where(event_key == NO_KEY, 1, event_key)


def accept(latest: "array[int]", key: int) -> bool:
    """Whether an event is accepted; False for a duplicate, which changes nothing.

    `latest`, of type code "q": the keys of its user's latest accepted events, latest last; an accepted event's joins
    them. NO_KEY is nobody's duplicate, and counts among the latest like any other.
    """
    if key != NO_KEY and key in latest:
        return False
    latest.append(key)
    del latest[:-LATEST]
    return True


@dataclass(frozen=True, slots=True)
class HistoryRule:
    """What a configuration says of histories."""

    length: int  # items
    event_weights: Mapping[str, float]  # of the accepted event types

    @classmethod
    def of(cls, config: HistoryConfig) -> "HistoryRule":
        return cls(config.length, config.event_weights)

    def weight(self, event: Interaction) -> float:
        """Raises KeyError for a type that is not accepted."""
        return self.event_weights[event.type]
