"""How often versions come, how long a chain of deltas grows, and how long old versions stay."""

from dataclasses import dataclass, field

from service.training.gate.gate import GateRules


@dataclass(frozen=True, slots=True)
class PublisherRules:
    interval_s: float  # least time between two candidates
    snapshot_interval_s: float
    chain_limit: int  # deltas after a snapshot
    chain_bytes_ratio: float  # of the snapshot's bytes, that the deltas after it may weigh
    keep_snapshots: int
    grace_s: float
    checkpoint_interval_s: float = 0.0  # least time between two versions that hold the trainer's own state
    promote_after_s: float = 0.0  # a pointer pinned for so long is set free; 0: never
    gate: GateRules = field(default_factory=GateRules)
