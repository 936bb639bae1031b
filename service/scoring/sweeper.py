"""Takes deleted and unavailable items out of lists at rest, within seconds.

Every scorer sweeps all lists. That is more work than once, and needs no agreement: a list that a scorer wrote before it
had heard of the deletion is swept by that scorer itself afterwards, so none can slip through.
"""

import logging
import threading

from model_store.errors import StoreUnavailable
from service.metrics import ScorerMetrics
from service.scoring.list_store import ListStore
from service.scoring.recommendations import without

log = logging.getLogger(__name__)

GATHER_S = 0.5  # deletions of so long are swept together


class Sweeper:
    def __init__(self, lists: ListStore, metrics: ScorerMetrics) -> None:
        self._lists, self._metrics = lists, metrics
        self._wanted: set[str] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        self._thread.join()

    def sweep_soon(self, items: set[str]) -> None:
        """The caller writes no more lists that hold `items`."""
        if items:
            with self._lock:
                self._wanted |= items
            self._wake.set()

    def _run(self) -> None:
        away = False
        while not self._stopping.is_set():
            self._wake.wait()
            if self._stopping.wait(GATHER_S):
                return
            with self._lock:
                items, self._wanted = self._wanted, set()
                self._wake.clear()
            try:
                swept = self.sweep(items)
            except StoreUnavailable as error:
                if not away:
                    log.warning("lists at rest are swept once Redis answers again: %s", error)
                away = True
                self.sweep_soon(items)
            else:
                away = False
                if swept:
                    log.info("took %d deleted or unavailable items out of %d lists", len(items), swept)

    def sweep(self, items: set[str]) -> int:
        """Now; how many lists have changed. Raises StoreUnavailable."""
        swept = 0
        for batch in self._lists.lists_at_rest() if items else ():
            changes = []
            for key, raw in batch:
                try:
                    shorter = without(raw, items)
                except (ValueError, KeyError, TypeError):
                    continue  # under this prefix, and not a list of ours
                if shorter is not None:
                    changes.append((key, raw, shorter))
            swept += self._lists.replace_lists(changes)
            if self._stopping.is_set():
                break
        self._metrics.lists_swept.inc(swept)
        return swept
