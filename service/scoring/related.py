"""What goes with each item: `tidemill:related:<item_id>`, written again when the item's neighbour row has moved.

One scorer at a time writes them, the one that holds a lease in Redis: they belong to no partition of the events. It
does so with time that users' lists leave over, and rewrites no list within REST_S.
"""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from consumers.times import iso, now_ms
from service.metrics import ScorerMetrics
from service.scoring.blocked_items import BlockedItems
from service.scoring.list_store import RELATED, ListStore, UserList
from service.scoring.moved_rows import MovedRows
from service.scoring.recommendations import list_json
from service.scoring.reloader import ServedModel
from service.scoring.sweeper import Sweeper

GROUP = 32  # lists made together: 3 ms
EVERY_S = 0.02  # between two groups
REST_S = 5.0  # a list is not written again within this, however much its row moves
LEASE_S = 5.0
ASK_EVERY_S = 1.0  # the lease is renewed, or asked for, so often


class RelatedLists:
    def __init__(
        self,
        moved: MovedRows,
        blocked: BlockedItems,
        lists: ListStore,
        sweeper: Sweeper,
        k: int,
        metrics: ScorerMetrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`k`: items in a list, at most. `clock`: seconds."""
        self._moved, self._blocked, self._lists, self._sweeper = moved, blocked, lists, sweeper
        self._k, self._metrics, self._clock = k, metrics, clock
        self._holds = False
        self._asked_at = self._wrote_at = -np.inf
        self._due: dict[int, None] = {}  # rows, in the order in which they moved
        self._written = np.empty(0)  # [N or more] when the row's list was written last

    def write(self, served: ServedModel, exclude: NDArray[np.bool_] | None) -> None:
        """Writes up to a group of lists, where this scorer holds the lease. `exclude` [size]: True for rows not to
        list. Raises: StoreUnavailable; the lists are due again then."""
        now = self._clock()
        if now - self._wrote_at < EVERY_S or not self._leads(now, served):
            return
        self._wrote_at = now
        self._take_moved(served)
        rows = self._next(now)
        if len(rows):
            self._due.update(dict.fromkeys(rows.tolist()))  # until they are written
            self._write(served, rows, exclude)
            for row in rows.tolist():
                del self._due[row]
            self._written[rows] = now

    def _leads(self, now: float, served: ServedModel) -> bool:
        """Whether this scorer holds the lease. Who has just got it writes every list."""
        if now - self._asked_at >= ASK_EVERY_S:
            self._asked_at = now
            held, self._holds = self._holds, self._lists.hold_related(LEASE_S)
            if self._holds and not held:
                self._due = dict.fromkeys(range(served.recommender.size))
                self._sweeper.take_over([RELATED], self._blocked.ids)
            elif held and not self._holds:
                self._due = {}
                self._sweeper.lose([RELATED])
        return self._holds

    def _take_moved(self, served: ServedModel) -> None:
        size = served.recommender.size
        if len(self._written) < size:
            self._written = np.concatenate([self._written, np.full(2 * size - len(self._written), -np.inf)])
        moved = self._moved.take()
        self._due.update(dict.fromkeys(range(size) if moved is None else moved.tolist()))

    def _next(self, now: float) -> NDArray[np.int64]:
        """Takes up to GROUP rows off those that are due, and puts back at the end those whose lists are too new."""
        rows: list[int] = []
        for _ in range(min(4 * GROUP, len(self._due))):
            row = next(iter(self._due))
            del self._due[row]
            if now - self._written[row] < REST_S:
                self._due[row] = None
            else:
                rows.append(row)
                if len(rows) == GROUP:
                    break
        return np.array(rows, np.int64)

    def _write(self, served: ServedModel, rows: NDArray[np.int64], exclude: NDArray[np.bool_] | None) -> None:
        with served.lock:
            recommender, manifest = served.recommender, served.manifest
            rows = rows[rows < recommender.size]
            related = recommender.related(rows, self._k, exclude=exclude)
            ids = recommender.ids
            named = [
                (ids[row], [(ids[other], score) for other, score in zip(best, scores, strict=True) if other >= 0])
                for row, best, scores in zip(rows.tolist(), *(each.tolist() for each in related), strict=True)
            ]
        at = iso(now_ms())
        lists = [
            UserList(
                item,
                [other for other, _ in best],
                list_json(
                    None,
                    best,
                    model_version=manifest.version,
                    trained_through=manifest.trained_through,
                    events_seen=None,
                    generated_at=at,
                ),
                [RELATED],
            )
            for item, best in named
            if item
        ]
        self._lists.write_lists(lists)
        self._metrics.related_written.inc(len(lists))
