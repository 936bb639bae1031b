"""Loads new versions while the scorer works with the one before.

Two copies of the model take turns. A new version is applied to the spare copy, which scoring does not use; then the two
are swapped, and the other copy takes the same update in before the next one. So a reload costs the scorer only the
swap. Each copy is made of the store's updates alone, never of the other copy, which would have to be locked for as
long.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from model_store.chain import newest_whole, updates_between
from model_store.errors import BrokenChain, Damaged, InvalidUpdate, NoSuchVersion, StoreUnavailable
from model_store.store import ModelStore
from model_store.version import Head
from model_store.weights import Update
from service.health import OK, Health
from service.metrics import ScorerMetrics
from service.model.recommender import Recommender
from service.model.registry import UnknownConfig, parse
from service.scoring.moved_rows import MovedRows, moved_by

log = logging.getLogger(__name__)

NO_VERSION = "no version yet"
ASK_AGAIN_S = 5.0  # between two requests for a snapshot
# A damaged version is tried again after the poll's interval, then after twice as long each time, up to this: to read
# and verify it at every poll would cost a core
RETRY_AT_MOST_S = 1.0


@dataclass
class ServedModel:
    """A model of one version. Hold `lock` while scoring with it."""

    recommender: Recommender
    manifest: Head
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def version(self) -> int:
        return self.manifest.version


class Reloader:
    """`served` is the model to score with: always one whole, verified version; None before the first is loaded."""

    def __init__(
        self,
        store: ModelStore,
        *,
        poll_s: float,
        device: str,
        metrics: ScorerMetrics,
        health: Health,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.served: ServedModel | None = None
        self.moved = MovedRows()  # by the versions loaded so far
        self._store, self._poll_s, self._device, self._clock = store, poll_s, device, clock
        self._metrics, self._health = metrics, health
        self._spare: ServedModel | None = None  # the copy that scoring does not use; it lacks `_missed`
        self._missed: list[Update] = []
        self._asked_at: float | None = None
        self._refused: int | None = None  # a live version that could not be loaded whole
        self._retry_s = self._retry_at = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reloader", daemon=True)
        health.set("weights", NO_VERSION)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._poll_s):
            try:
                self.check()
            except Exception:  # whatever happens, the scorer keeps the version it has
                log.exception("reloading failed")
                self._health.set("weights", "reloading failed; see the log")
                self._stop.wait(1.0)

    def check(self) -> bool:
        """Loads the live version if the pointer has moved; True when `served` has changed. Where a version is damaged
        or missing, or the store is away, the model stays as it is and /health says why."""
        started = time.perf_counter()
        try:
            live = self._store.live()
        except StoreUnavailable as error:
            self._health.set("redis", str(error))
            return False
        except Damaged as error:
            self._health.set("weights", str(error))
            return False
        self._health.set("redis", OK)
        if live is None:
            return False
        try:
            if self.served is not None and live == self.served.version:
                self._refused = None
                self._health.set("weights", OK)
                return False
            if live == self._refused and self._clock() < self._retry_at:
                return False
            self._follow(live)
        except StoreUnavailable as error:
            self._health.set("redis", str(error))
            return False
        except (Damaged, NoSuchVersion) as error:
            try:
                return self._cannot_load(live, error)
            except StoreUnavailable as away:
                self._health.set("redis", str(away))
                return False
        self._refused = None
        self._health.set("weights", OK)
        self._metrics.reload.observe(time.perf_counter() - started)
        self._make_spare()
        return True

    def _follow(self, live: int) -> None:
        have = None if self.served is None or self._spare is None else self.served.version
        if have is not None and have > live:
            have = None  # after a rollback later updates must be undone, so begin from a snapshot
        steps = updates_between(self._store, have, live)
        self._swap([update for _, update in steps], steps[-1][0])

    def _swap(self, updates: list[Update], manifest: Head) -> None:
        if self.served is not None and not any(each.full or each.tables or each.tensors for each in updates):
            with self.served.lock:  # the same weights with another version number
                self.served.manifest = manifest
            self._tell(manifest.version)
            return
        full = [number for number, update in enumerate(updates) if update.full]
        missed = updates[full[-1] :] if full else updates
        self._note_moved(missed)
        pending = missed if full else [*self._missed, *missed]
        spare = self._spare if self._spare is not None and not full else self._empty(manifest)
        self._spare = None  # so that a copy whose update fails half-way is never used
        _bring_to(manifest, spare, pending)
        self._spare, self.served = self.served, spare
        self._missed = missed
        self._tell(manifest.version)

    def _note_moved(self, updates: Sequence[Update]) -> None:
        for update in updates:
            self.moved.note(None if update.full else moved_by(update))

    def _empty(self, manifest: Head) -> ServedModel:
        """An empty model of this version's configuration. Raises: BrokenChain where a later release wrote it."""
        try:
            return ServedModel(Recommender(parse(manifest.config), self._device), manifest)
        except UnknownConfig as error:
            raise BrokenChain(
                f"version {manifest.version} was made by another release: {error}", manifest.version
            ) from None

    def _make_spare(self) -> None:
        """Makes the second copy where there is none, while lists are made with the first."""
        if self._spare is None and self.served is not None:
            spare = self._empty(self.served.manifest)
            _bring_to(self.served.manifest, spare, self._missed)
            self._spare, self._missed = spare, []

    def _tell(self, version: int) -> None:
        self._metrics.model_version.set(version)
        self._health.fact("model_version", version)

    def _cannot_load(self, live: int, error: Exception) -> bool:
        """Shows the error and asks for a snapshot. Where nothing is served yet, loads the newest version that is whole.
        True where it did."""
        found = newest_whole(self._store, live, readers=True) if self.served is None else None
        if found is not None:
            log.warning("starting with version %d, the newest that is whole", found.version)
            self._swap([found.state.snapshot()], found.manifest)
            self._make_spare()
        now = self._clock()
        if self._refused == live:
            self._retry_s = min(2 * self._retry_s, RETRY_AT_MOST_S)
        else:
            self._refused, self._retry_s = live, self._poll_s
            self._metrics.reload_failures.inc()
        self._retry_at = now + self._retry_s
        serving = "nothing" if self.served is None else f"version {self.served.version}"
        self._health.set("weights", f"version {live} cannot be loaded ({error}); serving {serving}")
        if self._asked_at is None or now - self._asked_at >= ASK_AGAIN_S:
            self._asked_at = now
            self._store.request_snapshot(f"version {live} cannot be read: {error}")
        return found is not None


def _bring_to(manifest: Head, served: ServedModel, updates: Sequence[Update]) -> None:
    """Applies updates to `served`, which makes it the version of `manifest`. Raises: BrokenChain where the model
    refuses their numbers."""
    with served.lock:  # a scorer may still be in the middle of its last group with it
        try:
            for update in updates:
                served.recommender.apply(update)
        except InvalidUpdate as error:
            raise BrokenChain(f"version {manifest.version}: {error}", manifest.version) from None
        served.recommender.prepare()
        served.manifest = manifest
