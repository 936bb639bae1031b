"""How often versions come, how long a chain of deltas grows, and how long old versions stay."""

from dataclasses import dataclass, field

from service.training.gate.gate import GateRules


@dataclass(frozen=True, slots=True)
class PublisherRules:
    """The rules of publishing, from the settings."""

    interval_s: float  # least time between two candidates
    snapshot_interval_s: float
    chain_limit: int  # deltas after a snapshot
    chain_bytes_ratio: float  # bytes of the deltas after a snapshot, as a share of the snapshot's
    keep_snapshots: int  # that are not retired
    grace_s: float  # younger versions are not retired
    checkpoint_interval_s: float = 0.0  # least time between two checkpoints
    promote_after_s: float = 0.0  # a pin is released after so long; 0: never
    gate: GateRules = field(default_factory=GateRules)
