"""When a snapshot is due, and when the trainer's own state. Pure: the time is passed in."""

from model_store.version import Kind
from service.training.publishing.rules import PublisherRules

LEAST_CHAIN_BYTES = 64 * 2**20  # below this, a chain of deltas is not worth a snapshot for its weight


class SnapshotPolicy:
    """A run begins with a snapshot: it bounds the chain and closes what a dead trainer left half done."""

    def __init__(self, rules: PublisherRules, now: float) -> None:
        """now: seconds by any clock that never goes back, as in every other call."""
        self._rules = rules
        self._asked = True
        self._snapshot_at, self._snapshot_bytes = now, 0
        self._chain, self._chain_bytes = 0, 0  # since the last snapshot
        self._checkpoint_at: float | None = None

    def ask(self) -> None:
        """Somebody needs one: it is due until there is one."""
        self._asked = True

    def due(self, now: float) -> bool:
        """Whether a snapshot is to be written, since one was asked for or the chain since the last one is too old, too
        long or too heavy."""
        if self._asked or not self._chain:
            return self._asked
        rules = self._rules
        heavy = max(LEAST_CHAIN_BYTES, rules.chain_bytes_ratio * self._snapshot_bytes)
        old = now - self._snapshot_at > rules.snapshot_interval_s
        return old or self._chain >= rules.chain_limit or self._chain_bytes > heavy

    def checkpoint_due(self, now: float) -> bool:
        """Whether the next delta is to hold the trainer's own state; a snapshot always does."""
        return self._checkpoint_at is None or now - self._checkpoint_at >= self._rules.checkpoint_interval_s

    def released(self, kind: Kind, size: int, now: float, *, checkpoint: bool) -> None:
        """A version of `size` bytes is published."""
        if checkpoint:
            self._checkpoint_at = now
        if kind == "snapshot":
            self._asked = False
            self._snapshot_at, self._snapshot_bytes = now, size
            self._chain = self._chain_bytes = 0
        else:
            self._chain += 1
            self._chain_bytes += size
