"""Moves the live pointer to each version that may go live, unless an operator has pinned the pointer."""

import logging
import time
from collections.abc import Callable

from model_store.lease import Lease
from model_store.store import CHALLENGER, ModelStore
from service.metrics import TrainerMetrics

log = logging.getLogger(__name__)

PIN_ASKED_EVERY_S = 1.0  # between two looks at how old a pin is


class Pointer:
    """The live pointer, and the alias `challenger` for versions that do not go live."""

    def __init__(
        self,
        store: ModelStore,
        lease: Lease,
        promote_after_s: float,
        *,
        metrics: TrainerMetrics,
        clock: Callable[[], float],
    ) -> None:
        """promote_after_s: a pin is released after so long; 0: never."""
        self._store, self._lease, self._promote_after_s = store, lease, promote_after_s
        self._metrics, self._clock = metrics, clock
        self._pin_asked_at = -1e9

    def point_at(self, version: int, why_not: str | None) -> None:
        """Moves the live pointer to the version, or the alias `challenger` where there is a reason `why_not` to go
        live.

        Raises: StoreUnavailable, NoSuchVersion, LeaseLost.
        """
        if why_not is None and not self._store.move(version, "published", lease=self._lease):
            why_not = "the pointer is pinned"
            if self._release_pin(version):
                why_not = None
        if why_not is not None:
            self._store.move(version, why_not, alias=CHALLENGER, lease=self._lease)
            self._metrics.versions_held_back.inc()

    def _release_pin(self, version: int) -> bool:
        """Makes the version live and releases the pin, where it has lasted for `promote_after_s`. Whether it did."""
        now = self._clock()
        if not self._promote_after_s or now - self._pin_asked_at < PIN_ASKED_EVERY_S:
            return False
        self._pin_asked_at = now
        since = self._store.pinned_since()
        if since is None or time.time() - since < self._promote_after_s:
            return False
        self._store.promote(version, f"pinned for {self._promote_after_s:g} s", lease=self._lease)
        log.warning("the pointer was pinned for %g s: version %d is live", self._promote_after_s, version)
        return True
