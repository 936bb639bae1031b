"""Which versions may go.

Kept are, each with its chain back to a snapshot: whatever is live, newest, under an alias, or was live within the
readers' grace (a reader may be loading it this moment), and whatever is younger than the grace. Beside them the last
few snapshots stay as targets of a rollback: each can be loaded alone, so the deltas between old snapshots may go.
"""

from collections.abc import Iterable, Sequence

from model_store.errors import StillNeeded
from model_store.lease import Lease
from model_store.store import ModelStore
from model_store.version import Summary

# a reader that is told of a version, and then starves on a busy machine, still finds it whole
GRACE_SECONDS = 120.0
KEEP_SNAPSHOTS = 3


def plan(versions: Sequence[Summary], *, needed: Iterable[int], now: float, grace: float, keep: int) -> list[int]:
    """The versions to delete, ascending. What is kept is closed: with a version all that it is built on.

    needed: versions to keep whatever their age (live, aliases, lately live). now: epoch seconds by the clock that
    wrote `created_at`. grace: seconds. keep: how many snapshots stay as rollback targets.
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
    """Deletes what nobody needs any more and returns it. Once after each snapshot is often enough.

    Raises: LeaseLost, StoreUnavailable.
    """
    for _ in range(3):
        # looked up before the list of versions: what is published in between is not on the list, so it stays
        needed = {*store.aliases().values(), *store.live_since(now - grace)}
        gone = plan(store.summaries(), needed=needed, now=now, grace=grace, keep=keep)
        try:
            if gone:
                store.delete(gone, lease=lease)
            return gone
        except StillNeeded:
            continue  # an operator moved the pointer amid it
    return []
