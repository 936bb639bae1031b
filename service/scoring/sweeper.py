"""Takes deleted and unavailable items out of lists at rest, within seconds.

Each scorer sweeps the lists of the users of its partitions. The index that is written with each list (`list_index`)
shows which of them hold an item, and only those are touched. A scorer may write a list before it reads of a deletion,
so it goes on sweeping a partition for a while after losing it. A scorer that takes a partition over sweeps it of all
blocked items. So scorers need not agree with each other.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable

from consumers.records import TopicPartition
from model_store.errors import StoreUnavailable
from service.metrics import ScorerMetrics
from service.scoring.list_index import Holders, expired
from service.scoring.list_store import ListStore
from service.scoring.recommendations import items_in

log = logging.getLogger(__name__)

GATHER_S = 0.5  # deletions within this time are swept together
# After a sweep the sweeper rests for as long as the sweep took, so that it takes half of a core at most; but no longer
# than this, so that items leave the lists within 10 s
REST_AT_MOST_S = 2.0
TRIM_EVERY_S = 3600.0  # each sweep drops the entries of expired lists, so there is at least one in this time
LOST_FOR_S = 60.0  # a lost partition is swept so long; a scorer reads of a deletion within seconds


class Sweeper:
    def __init__(
        self,
        lists: ListStore,
        metrics: ScorerMetrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`clock`: seconds. `wall`: epoch seconds."""
        self._lists, self._metrics, self._clock, self._wall = lists, metrics, clock, wall
        self._mine: dict[TopicPartition, float] = {}  # until when their lists are swept here
        self._wanted: dict[TopicPartition, set[str]] = {}  # items to take out of the lists of a partition
        self._wanted_of_default: set[str] = set()
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

    def take_over(self, partitions: Iterable[TopicPartition], blocked: set[str]) -> None:
        """Sweeps the lists of these partitions from now on, and at once of all blocked items, since the scorer before
        may have ended without."""
        taken = list(partitions)
        with self._lock:
            self._mine.update(dict.fromkeys(taken, math.inf))
        self._want(taken, blocked)

    def lose(self, partitions: Iterable[TopicPartition]) -> None:
        """To be called when this scorer writes no more lists of these partitions."""
        until = self._clock() + LOST_FOR_S
        with self._lock:
            self._mine.update((where, until) for where in partitions if where in self._mine)

    def sweep_soon(self, items: set[str]) -> None:
        """Takes `items` out of all lists soon. The caller writes no more lists that hold them."""
        if items:
            self._want(self._sweeps(), items)

    def sweep(self) -> int:
        """Takes out all items wanted so far. Returns how many lists have changed.

        Raises: StoreUnavailable, and may then be called again.
        """
        with self._lock:
            wanted, self._wanted = self._wanted, {}
            of_default, self._wanted_of_default = self._wanted_of_default, set()
            self._wake.clear()
        swept = 0
        try:
            swept += self._sweep_default(of_default)
            while wanted and not self._stopping.is_set():
                where, items = next(iter(wanted.items()))
                swept += self._sweep_partition(where, items)
                del wanted[where]
        except Exception:
            with self._lock:
                self._wanted_of_default |= of_default
                for where, items in wanted.items():
                    self._wanted.setdefault(where, set()).update(items)
                self._wake.set()
            raise
        finally:
            self._metrics.lists_swept.inc(swept)
        return swept

    def _sweeps(self) -> list[TopicPartition]:
        """The partitions whose lists are swept here now."""
        with self._lock:
            self._mine = {where: until for where, until in self._mine.items() if until > self._clock()}
            return list(self._mine)

    def _want(self, partitions: Iterable[TopicPartition], items: set[str]) -> None:
        with self._lock:
            for where in partitions:
                self._wanted.setdefault(where, set()).update(items)
            self._wanted_of_default |= items
            self._wake.set()

    def _sweep_partition(self, where: TopicPartition, items: set[str]) -> int:
        holders, swept = Holders(items), 0
        for users, entries in self._lists.index(where):
            found = holders.among(entries)
            swept += self._lists.take_out(where, [(users[n], held) for n, held in found.items()])
            gone = expired(entries, self._wall())
            self._lists.drop_entries(where, [(users[n], entries[n]) for n in gone])
            if self._stopping.is_set():
                break
        return swept

    def _sweep_default(self, items: set[str]) -> int:
        raw = self._lists.read_default() if items else None
        held = items.intersection(items_in(raw)) if raw is not None else ()
        return self._lists.take_out_of_default(held) if held else 0

    def _run(self) -> None:
        away, rest_s = False, GATHER_S
        while not self._stopping.is_set():
            if not self._wake.wait(TRIM_EVERY_S):
                self._want(self._sweeps(), set())
            if self._stopping.wait(rest_s):
                return
            began = self._clock()
            try:
                swept = self.sweep()
            except StoreUnavailable as error:
                if not away:
                    log.warning("lists at rest are swept once Redis answers again: %s", error)
                away = True
                continue
            except Exception:  # whatever it was, items deleted later must still leave the lists
                log.exception("lists at rest could not be swept, which is tried again")
                rest_s = REST_AT_MOST_S
                continue
            away, took = False, self._clock() - began
            rest_s = max(GATHER_S, min(took, REST_AT_MOST_S))
            if swept:
                log.info("took deleted and unavailable items out of %d lists in %.1f s", swept, took)
