"""What came of each event that was ranked before it was learned from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


def _none() -> Index:
    return np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Ranked:
    """m events of a micro-batch, in the order of the batch."""

    place: Index = field(default_factory=_none)  # [m] the event's place among all events of the batch
    ahead: Index = field(
        default_factory=_none
    )  # [m] items listed before the target; reranking.NOT_LISTED where it would not be
    alone: Mapping[str, Index] = field(default_factory=dict)  # channel -> [m] the same, had it ranked alone
    origin: tuple[str, ...] = ()  # [m] the channel that proposed the target; "" where none did

    @classmethod
    def joined(cls, parts: "list[Ranked]") -> "Ranked":
        """Parts of one batch, in order."""
        if not parts:
            return cls()
        return cls(
            np.concatenate([part.place for part in parts]),
            np.concatenate([part.ahead for part in parts]),
            {name: np.concatenate([part.alone[name] for part in parts]) for name in parts[0].alone},
            tuple(name for part in parts for name in part.origin),
        )
