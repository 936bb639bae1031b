"""Decides which versions are deleted.

Kept are, each with its chain back to a snapshot: the live and the newest version, those under an alias, those that were
live within the grace (a reader may be loading them), and those younger than the grace. The last few snapshots are kept
too, as targets of a rollback: each can be loaded alone, so the deltas between old snapshots are deleted.
"""

from collections.abc import Iterable, Sequence

from model_store.errors import StillNeeded
from model_store.lease import Lease
from model_store.store import ModelStore
from model_store.version import Summary

GRACE_SECONDS = 120.0  # for a reader that learns of a version and is then held up on a busy machine
KEEP_SNAPSHOTS = 3


def plan(versions: Sequence[Summary], *, needed: Iterable[int], now: float, grace: float, keep: int) -> list[int]:
    """The versions to delete, ascending. All versions that a kept one is built on are kept.

    needed: versions to keep whatever their age (live, under an alias, live within the grace). now: epoch seconds by the
    clock that wrote `created_at`. grace: seconds. keep: how many snapshots stay as rollback targets.
    """
    by_number = {each.version: each for each in versions}
    kept: set[int] = set()

    def keep_chain(version: int | None) -> None:
        while version is not None and version not in kept and (each := by_number.get(version)) is not None:
            kept.add(version)
            version = None if each.kind == "snapshot" else each.parent

    for version in needed:
        keep_chain(version)
    for each in versions:
        if now - each.created < grace:
            keep_chain(each.version)
    keep_chain(max(by_number, default=None))
    snapshots = sorted(each.version for each in versions if each.kind == "snapshot")
    for version in snapshots[max(0, len(snapshots) - keep) :]:
        keep_chain(version)
    return sorted(by_number.keys() - kept)


def retire(
    store: ModelStore,
    *,
    now: float,
    grace: float = GRACE_SECONDS,
    keep: int = KEEP_SNAPSHOTS,
    lease: Lease | None = None,
) -> list[int]:
    """Deletes the versions that `plan` names, and returns them. Once after each snapshot is often enough.

    Raises: LeaseLost, StoreUnavailable.
    """
    for _ in range(3):
        # asked before the list of versions: a version published in between is not on the list, so it stays
        needed = {*store.aliases().values(), *store.live_since(now - grace)}
        gone = plan(store.summaries(), needed=needed, now=now, grace=grace, keep=keep)
        try:
            if gone:
                store.delete(gone, lease=lease)
            return gone
        except StillNeeded:
            continue  # an operator moved the pointer in between
    return []
