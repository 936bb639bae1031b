"""What there is to show of a running Tidemill. A figure that is not there is None, never a guess."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Listed(NamedTuple):
    """One user's list as it stands in Redis."""

    item_ids: tuple[str, ...]
    model_version: int | None
    events_seen: int | None


class Quantiles(NamedTuple):
    p50: float | None  # seconds
    p99: float | None


NOTHING = Quantiles(None, None)


@dataclass(frozen=True, slots=True)
class Figures:
    """One look at the whole. Rates are per second, ages and durations in seconds."""

    live_version: int | None = None
    version_age: float | None = None
    events_learned: int | None = None  # over all runs, from the live version's manifest
    learned_rate: float | None = None
    trained_through: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    history: Quantiles = NOTHING
    learned: Quantiles = NOTHING
    recall: float | None = None
    ndcg: float | None = None
    lag: float | None = None  # records the trainer has still to take in
    scorer_lag: float | None = None  # all scorers together
    rejected: float | None = None
    health: Mapping[str, str] = field(default_factory=dict)  # process -> "ok" or what it says instead
    versions: Mapping[str, int] = field(default_factory=dict)  # process -> the version it uses
    redis: str | None = None  # what is wrong with Redis


def outstanding(ends: Mapping[int, int], trained_through: Mapping[str, int]) -> int:
    """How many records of a topic are in Kafka and not yet in the live version."""
    return sum(max(0, end - trained_through.get(str(partition), 0)) for partition, end in ends.items())
