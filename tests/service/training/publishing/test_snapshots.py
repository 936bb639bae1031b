"""When a snapshot is due: by wish, age, length and weight of the chain, with the time passed in."""

import dataclasses

import pytest

from service.training.publishing.rules import PublisherRules
from service.training.publishing.snapshots import LEAST_CHAIN_BYTES, SnapshotPolicy

RULES = PublisherRules(
    interval_s=0.0, snapshot_interval_s=300.0, chain_limit=3, chain_bytes_ratio=4.0, keep_snapshots=3, grace_s=5.0
)
MB = 2**20


def begun(snapshot_bytes: int = MB, **rules: float) -> SnapshotPolicy:
    """With its first snapshot written at second 0."""
    policy = SnapshotPolicy(dataclasses.replace(RULES, **rules), 0.0)  # type: ignore[arg-type]
    policy.released("snapshot", snapshot_bytes, 0.0, checkpoint=True)
    return policy


def test_a_run_begins_with_one() -> None:
    policy = SnapshotPolicy(RULES, 0.0)
    assert policy.due(0.0)
    policy.released("delta", MB, 1.0, checkpoint=True)
    assert policy.due(1.0)
    policy.released("snapshot", MB, 2.0, checkpoint=True)
    assert not policy.due(2.0)


@pytest.mark.parametrize(
    ("deltas", "size", "now", "due"),
    [
        (0, MB, 10_000.0, False),  # the last version is a snapshot, however old
        (1, MB, 300.0, False),
        (1, MB, 300.1, True),
        (2, MB, 1.0, False),
        (3, MB, 1.0, True),
        (2, LEAST_CHAIN_BYTES // 2, 1.0, False),
        (2, LEAST_CHAIN_BYTES // 2 + 1, 1.0, True),
    ],
)
def test_old_long_and_heavy_chains(deltas: int, size: int, now: float, due: bool) -> None:
    policy = begun()
    for _ in range(deltas):
        policy.released("delta", size, 0.5, checkpoint=True)
    assert policy.due(now) is due


def test_a_heavy_snapshot_bears_a_heavy_chain() -> None:
    policy = begun(snapshot_bytes=LEAST_CHAIN_BYTES)
    policy.released("delta", 4 * LEAST_CHAIN_BYTES, 1.0, checkpoint=True)
    assert not policy.due(1.0)
    policy.released("delta", 1, 1.0, checkpoint=True)
    assert policy.due(1.0)


def test_a_wish_lasts_until_there_is_one() -> None:
    policy = begun()
    policy.ask()
    assert policy.due(0.0)
    policy.released("delta", MB, 1.0, checkpoint=True)
    assert policy.due(1.0)
    policy.released("snapshot", MB, 1.0, checkpoint=True)
    assert not policy.due(1.0)


def test_checkpoints_keep_their_distance() -> None:
    policy = SnapshotPolicy(dataclasses.replace(RULES, checkpoint_interval_s=5.0), 0.0)
    assert policy.checkpoint_due(0.0)
    policy.released("delta", MB, 1.0, checkpoint=True)
    policy.released("delta", MB, 4.0, checkpoint=False)
    assert not policy.checkpoint_due(5.9)
    assert policy.checkpoint_due(6.0)
