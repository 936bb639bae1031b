"""When a snapshot is due, and when a checkpoint. Pure: the time is passed in."""

from model_store.version import Kind
from service.training.publishing.rules import PublisherRules

LEAST_CHAIN_BYTES = 64 * 2**20  # a chain of deltas with fewer bytes makes no snapshot due


class SnapshotPolicy:
    """A run begins with a snapshot: it bounds the chain, and readers need nothing that an earlier trainer left
    undone."""

    def __init__(self, rules: PublisherRules, now: float) -> None:
        """now, here and in other calls: seconds of one clock that never goes back."""
        self._rules = rules
        self._asked = True
        self._snapshot_at, self._snapshot_bytes = now, 0
        self._chain, self._chain_bytes = 0, 0  # since the last snapshot
        self._checkpoint_at: float | None = None

    def ask(self) -> None:
        """Makes a snapshot due until there is one."""
        self._asked = True

    def due(self, now: float) -> bool:
        """Whether a snapshot is to be written: one was asked for, or the last one is too old, or the chain of deltas
        since then has too many deltas or bytes."""
        if self._asked or not self._chain:
            return self._asked
        rules = self._rules
        heavy = max(LEAST_CHAIN_BYTES, rules.chain_bytes_ratio * self._snapshot_bytes)
        old = now - self._snapshot_at > rules.snapshot_interval_s
        return old or self._chain >= rules.chain_limit or self._chain_bytes > heavy

    def checkpoint_due(self, now: float) -> bool:
        """Whether the next delta is to be a checkpoint; a snapshot always is one."""
        return self._checkpoint_at is None or now - self._checkpoint_at >= self._rules.checkpoint_interval_s

    def released(self, kind: Kind, size: int, now: float, *, checkpoint: bool) -> None:
        """To be called when a version of `size` bytes is published."""
        if checkpoint:
            self._checkpoint_at = now
        if kind == "snapshot":
            self._asked = False
            self._snapshot_at, self._snapshot_bytes = now, size
            self._chain = self._chain_bytes = 0
        else:
            self._chain += 1
            self._chain_bytes += size
