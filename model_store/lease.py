"""Who may publish: a lease with a growing token, and the thread that keeps it.

The token is what fences: it grows whenever a lease is taken or given back, and every write compares it in the same
atomic step. The time to live only decides when a standby may take over. So a trainer whose lease ran out while Redis
was down goes on when nobody took it, and a frozen one that wakes up after a takeover can write nothing.
"""

import logging
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from model_store.errors import LeaseLost, StoreUnavailable

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to publish, until another one holds a higher token."""

    token: int
    holder: str


class Leases(Protocol):
    """The part of a model store that gives out leases."""

    def acquire(self, holder: str, ttl: float) -> Lease | None: ...
    def renew(self, lease: Lease, ttl: float) -> bool: ...
    def release(self, lease: Lease) -> None: ...


def wait_for_lease(store: Leases, holder: str, ttl: float, stop: threading.Event, *, poll: float = 0.2) -> Lease | None:
    """What a standby does: blocks until the lease is free and taken (asking every `poll` seconds), or `stop` is set.

    An unavailable store is waited for. Returns None when stopped.
    """
    waiting = False
    while not stop.is_set():
        try:
            if (lease := store.acquire(holder, ttl)) is not None:
                return lease
            why = "another trainer holds the lease"
        except StoreUnavailable as error:
            why = str(error)
        if not waiting:
            waiting = True
            log.info("standing by: %s", why)
        stop.wait(poll)
    return None


class LeaseKeeper:
    """Renews a lease every third of its time to live in a thread of its own, so that a long step does not cost it.

    `lost` is set once another one holds the lease, never for an unavailable store alone: publishing is refused anyway
    while nobody can be asked, and afterwards the lease is still ours if nobody took it.
    """

    def __init__(self, store: Leases, lease: Lease, ttl: float) -> None:
        self.lease = lease
        self.lost = threading.Event()
        self._store = store
        self._ttl = ttl
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stops renewing and gives the lease back, so that a standby need not wait. Never raises."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if not self.lost.is_set():
            try:
                self._store.release(self.lease)
            except StoreUnavailable as error:
                log.warning("the lease runs out by itself: %s", error)

    def check(self) -> None:
        """Raises: LeaseLost once another one holds the lease."""
        if self.lost.is_set():
            raise LeaseLost(f"another trainer has taken the lease {self.lease.token} of {self.lease.holder}")

    def renew(self) -> bool:
        """One renewal. Whether it went through; False also when the store did not answer."""
        try:
            if self._store.renew(self.lease, self._ttl):
                return True
            self.lost.set()
            log.error("another trainer has taken the lease %d of %s", self.lease.token, self.lease.holder)
        except StoreUnavailable as error:
            log.debug("the lease could not be renewed: %s", error)  # /health says so, and the log with it
        return False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        while not self.lost.is_set() and not self._stop.wait(self._ttl / 3):
            self.renew()
