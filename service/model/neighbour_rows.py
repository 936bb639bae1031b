"""Neighbour rows: which items come after which, and before which, in the users' histories; bounded and decayed.

Each item has a row of at most M slots (neighbour, forward, backward). An event on item y after the user's items x_1
(the latest), x_2, ... adds w / d to the forward weight of slot y in the row of x_d, and to the backward weight of slot
x_d in the row of y, where w is the weight of the event. Where x_d is y itself, a self-transition, only the forward
weight is there. This is item-based nearest neighbours (Sarwar et al., WWW 2001) by co-occurrence in sequences, bounded
as by the Space-Saving summary (Metwally, Agrawal, El Abbadi, ICDT 2005): in a full row the weakest slot is replaced if
it weighs less than what comes, else it loses what comes.

Weights fade by forward decay (Cormode et al., ICDE 2009) on a clock of the row's own: they halve while the row receives
`half_life` units of weight. So weights that come are scaled up, and nothing untouched is written.

Slots lie in one pool. A row takes 4 slots at first and moves to twice as many when it is full, up to M: of a million
items most are rare, and cost 48 bytes of slots. The pool is made of pages of M slots, each parted into extents of one
size. A free extent is one that no row has: so what is free follows from the tables, and a restored pool gives out
extents in the order in which the one before would have.

Shapes: N items, S slots in the pool.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from service.model.kernels import slots as kernels
from service.model.row_table import RowTable

Index = NDArray[np.int64]

SMALLEST = 4  # slots of a new row
PLACE = 3  # columns of `place`: first slot (-1: the row is empty), slots it has room for, slots in use
MASS = 3  # columns of `mass`: what the row received forward, backward, and the scale of its weights
TOUCHED = 1 << 16  # slots that may be noted as written before the kernel returns, unless one event may write more


class NeighbourRows:
    """The rows of all items, in tables. `slots` M: at most so many neighbours an item, a power of two from 4 on."""

    def __init__(self, slots: int, half_life: float, backward: float) -> None:
        """`half_life`: units of weight received by a row. `backward`: what a backward weight counts beside a forward
        one, in the row's clock and for which slot is the weakest."""
        self.slots, self.half_life, self.backward = slots, half_life, backward
        self.place = RowTable("neighbours/place", (PLACE,), torch.int32)  # [N, 3]; all 0: no slots yet
        self.mass = RowTable("neighbours/mass", (MASS,), torch.float32)  # [N, 3]; all 0: nothing received yet
        self.item = RowTable("neighbours/item", (), torch.int32, fill=-1)  # [S] the neighbour's row; -1: not in use
        self.weight = RowTable("neighbours/weight", (2,), torch.float32)  # [S, 2] forward and backward, scaled
        self.page = RowTable("trainer/neighbours/page", (), torch.int32)  # [S / M] slots of each extent of the page
        self._free: dict[int, Index] = {size: np.empty(0, np.int64) for size in self.sizes}  # first slots, ascending

    @property
    def sizes(self) -> list[int]:
        """The sizes of extents, in slots."""
        return [SMALLEST << n for n in range((self.slots // SMALLEST).bit_length())]

    @property
    def tables(self) -> list[RowTable]:
        return [self.place, self.mass, self.item, self.weight, self.page]

    @property
    def shared(self) -> list[RowTable]:
        """The tables that readers have."""
        return [self.place, self.mass, self.item, self.weight]

    def resize(self, size: int) -> None:
        self.place.resize(size)
        self.mass.resize(size)

    # -- learning ------------------------------------------------------------------------------------------------------

    def learn(self, item: Index, weight: NDArray[np.float64], history: NDArray[np.int32]) -> None:
        """Takes in n events in their order: items [n], weights [n] and the histories before them [n, L], most recent
        last, -1 for padding. An event of negative weight (a dislike) takes its transitions back, as far as there are
        any."""
        done, n, reach = 0, len(item), history.shape[1]
        sizes = np.array(self.sizes, np.int64)
        touched = max(TOUCHED, kernels.most_slots(reach, self.slots))
        slots, rows = np.empty(touched, np.int64), np.empty(touched, np.int64)
        while done < n:
            self._make_room(2 * reach)
            most = max(len(free) for free in self._free.values())
            free = np.full((len(sizes), most), -1, np.int64)
            given = np.zeros(len(sizes), np.int64)  # extents of each size taken from the front of `free`
            have = np.array([len(self._free[size]) for size in self.sizes], np.int64)
            back = np.empty((len(sizes), touched), np.int64)  # extents given back
            returned = np.zeros(len(sizes), np.int64)
            for k, size in enumerate(self.sizes):
                free[k, : have[k]] = self._free[size]
            done, n_slots, n_rows = kernels.learn(
                done, item, weight, history, self.half_life, self.backward, self.slots, sizes,
                self.place.array, self.mass.array, self.item.array, self.weight.array,
                free, have, given, back, returned, slots, rows,
            )  # fmt: skip
            for k, size in enumerate(self.sizes):
                left = self._free[size][given[k] :]
                self._free[size] = np.sort(np.concatenate([left, back[k, : returned[k]]]))
            for table in (self.place, self.mass):
                table.touch(np.unique(rows[:n_rows]))
            for table in (self.item, self.weight):
                table.touch(np.unique(slots[:n_slots]))

    def _make_room(self, extents: int) -> None:
        """Adds pages until so many extents of each size are free, or as many as one more event may need."""
        for size in self.sizes:
            lacking = extents - len(self._free[size])
            if lacking > 0:
                self._add_pages(size, max(-(-lacking * size // self.slots), self.page.size // 16))

    def _add_pages(self, size: int, n: int) -> None:
        first, begin = self.page.size, self.item.size
        self.page.resize(first + n)
        self.page.put(np.arange(first, first + n, dtype=np.int64), size)
        self.item.resize(begin + n * self.slots)
        self.weight.resize(begin + n * self.slots)
        more = np.arange(begin, begin + n * self.slots, size, dtype=np.int64)
        self._free[size] = np.concatenate([self._free[size], more])  # ascending: new pages come last

    # -- items come and go ---------------------------------------------------------------------------------------------

    def forget(self, rows: Index) -> None:
        """Empties these rows, and takes their items out of all others."""
        if not len(rows):
            return
        gone = np.zeros(self.place.size, np.bool_)
        gone[rows] = True
        for row in rows.tolist():
            first, size, _ = self.place.array[row].tolist()
            if size:
                self._free[size] = np.sort(np.append(self._free[size], first))
                self._clear(np.arange(first, first + size, dtype=np.int64))
        self.place.put(rows, 0)
        self.mass.put(rows, 0.0)
        slots, changed = np.empty(self.item.size, np.int64), np.empty(self.place.size, np.int64)
        n_slots, n_rows = kernels.take_out(
            gone, self.place.array[: self.place.size], self.item.array, self.weight.array, slots, changed
        )
        for table in (self.item, self.weight):
            table.touch(slots[:n_slots])
        self.place.touch(changed[:n_rows])

    def _clear(self, slots: Index) -> None:
        self.item.put(slots, -1)
        self.weight.put(slots, 0.0)

    def restored(self) -> None:
        """Finds the free extents again. To be called after the tables were loaded."""
        place = self.place.array[: self.place.size]
        taken = place[place[:, 1] > 0]
        owned = np.zeros(self.item.size, np.bool_)
        owned[taken[:, 0]] = True
        size_at = np.repeat(self.page.array[: self.page.size].astype(np.int64), self.slots)  # [S]
        offset = np.arange(self.item.size) % self.slots
        for size in self.sizes:
            begins = (size_at == size) & (offset % size == 0)
            self._free[size] = np.flatnonzero(begins & ~owned)

    def share(self, other: "NeighbourRows") -> None:
        """Uses the tables of `other`."""
        self.place, self.mass, self.item, self.weight = other.place, other.mass, other.item, other.weight
