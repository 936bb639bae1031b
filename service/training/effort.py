"""How much is learned from a micro-batch besides counting it: less while the trainer is behind.

It is part of what an update depends on, so the manifest records it with the batch.
"""

from dataclasses import dataclass, replace
from typing import Any

from model_store.version import BatchRecord

LESSONS, NETWORK = "lessons", "network"
"""Names in `BatchRecord.extra`; a share that is not there is 1."""


@dataclass(frozen=True, slots=True)
class Effort:
    """Shares are of what the configuration says, 0 to 1."""

    replay: int = 1  # past targets that the network learns again for each fresh one
    network: float = 1.0  # share of the events that the network learns from
    lessons: float = 1.0  # share of the lessons of the ranker

    @classmethod
    def of(cls, record: BatchRecord) -> "Effort":
        """The effort with which a batch was learned."""
        shares = {name: float(str(record.extra.get(name, 1.0))) for name in (NETWORK, LESSONS)}
        return cls(int(record.replay), shares[NETWORK], shares[LESSONS])

    @property
    def extra(self) -> dict[str, Any]:
        """For `BatchRecord.extra`."""
        return {name: share for name, share in ((NETWORK, self.network), (LESSONS, self.lessons)) if share != 1.0}


FULL = Effort()
"""Of a trainer that is not behind."""

_STEPS = ((2.0, Effort()), (4.0, Effort(0, 1.0, 0.5)), (8.0, Effort(0, 0.5, 0.25)))
_LEAST = Effort(0, 0.125, 0.0625)


def affordable(waiting: float, replay: int) -> Effort:
    """What to do of a batch while `waiting` further full ones wait: the network gives way first, by its replay and then
    by its share of events, so that the newest events are counted soon. `replay`: that of a trainer that is not
    behind."""
    for most, effort in _STEPS:
        if waiting <= most:
            return replace(effort, replay=min(replay, effort.replay * replay))
    return _LEAST
