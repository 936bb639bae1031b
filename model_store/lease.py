"""The lease of the one trainer that may publish, and the thread that renews it.

The token fences: it grows whenever a lease is taken or given back, and every write compares it in the same atomic step.
The time to live only decides when a standby may take over. So a trainer whose lease ran out while Redis was down goes
on if nobody took it, and a frozen trainer that wakes up after a takeover can write nothing.
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
    """The right to publish, until another trainer holds a higher token."""

    token: int
    holder: str


class Leases(Protocol):
    """The part of a model store that gives out leases."""

    def acquire(self, holder: str, ttl: float) -> Lease | None: ...
    def renew(self, lease: Lease, ttl: float) -> bool: ...
    def release(self, lease: Lease) -> None: ...


def wait_for_lease(store: Leases, holder: str, ttl: float, stop: threading.Event, *, poll: float = 0.2) -> Lease | None:
    """Blocks until the lease is free and taken, asking every `poll` seconds, or until `stop` is set: then None.

    ttl: seconds. An unavailable store is waited for.
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
    """Renews a lease every third of its time to live, on its own thread, so that a long step does not lose it.

    `lost` is set once another trainer holds the lease, and not while the store is unavailable: nothing can be published
    then, and afterwards the lease is still held if nobody took it.
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
        """Raises: LeaseLost once another trainer holds the lease."""
        if self.lost.is_set():
            raise LeaseLost(f"another trainer has taken the lease {self.lease.token} of {self.lease.holder}")

    def renew(self) -> bool:
        """Renew once. False if the lease is lost or the store did not answer."""
        try:
            if self._store.renew(self.lease, self._ttl):
                return True
            self.lost.set()
            log.error("another trainer has taken the lease %d of %s", self.lease.token, self.lease.holder)
        except StoreUnavailable as error:
            log.debug("the lease could not be renewed: %s", error)  # /health logs it as a warning
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
