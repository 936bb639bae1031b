"""What the trainer keeps of each user: the latest items, the latest event keys, how many events.

Items and keys are rings, stored flat with one row a slot: slot j of user u is row u * width + j. An event touches one
slot of each, so a delta holds 12 bytes an event, not whole histories.
"""

from array import array
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from service.model.history import LATEST, NO_KEY, accept
from service.model.query import NOT_KNOWN
from service.model.row_table import IdTable, RowTable

Index = NDArray[np.int64]


class UserTable:
    """Users <-> rows, and the rings and counts of each."""

    def __init__(self, length: int) -> None:
        """`length` L: items of a history."""
        self.length = length
        self.names = IdTable("trainer/user/id")
        self.history = RowTable("trainer/user/history", (), torch.int32, fill=-1)  # [U * L] item rows, -1: none
        self.keys = RowTable("trainer/user/event_key", (), torch.int64)  # [U * LATEST]; 0: none
        self.counts = RowTable("trainer/user/count", (3,), torch.int64)  # [U, 3] events, targets among them, last clock
        self.last = RowTable(
            "trainer/user/last", (), torch.float64, fill=NOT_KNOWN
        )  # [U] epoch seconds of the latest item
        self._free: list[int] = []  # ascending

    @property
    def tables(self) -> list[RowTable | IdTable]:
        return [self.history, self.keys, self.counts, self.last, self.names]

    @property
    def size(self) -> int:
        """Rows, in use or free."""
        return len(self.names)

    @property
    def in_use(self) -> int:
        """Rows that have a user."""
        return self.size - len(self._free)

    def rows_of(self, ids: Sequence[str], *, limit: int | None) -> Index:
        """[n] a row for each of these distinct users; a new user gets an empty one.

        Where there would be more than `limit` rows, those of the users absent longest are freed.
        """
        rows = self.names.rows_of(ids)
        new = np.flatnonzero(rows < 0)
        if not len(new):
            return rows
        if limit is not None and (excess := self.size - len(self._free) + len(new) - limit) > 0:
            self._expire(max(excess, limit // 16), keep=rows[rows >= 0])
        reused, self._free = self._free[: len(new)], self._free[len(new) :]
        given = reused + list(range(self.size, self.size + len(new) - len(reused)))
        self.names.add([ids[i] for i in new.tolist()], given)
        self._resize()
        rows[new] = given
        return rows

    def _resize(self) -> None:
        for table, width in ((self.history, self.length), (self.keys, LATEST), (self.counts, 1), (self.last, 1)):
            table.resize(self.size * width)

    def _expire(self, n: int, keep: Index) -> None:
        last = self.counts.array[: self.size, 2].astype(np.int64)
        last[keep] = np.iinfo(np.int64).max
        last[self._free] = np.iinfo(np.int64).max
        candidates = np.flatnonzero(last < np.iinfo(np.int64).max)
        rows = np.sort(candidates[np.argsort(last[candidates], kind="stable")[:n]])
        self.names.free(rows)
        for table, width in ((self.history, self.length), (self.keys, LATEST), (self.counts, 1), (self.last, 1)):
            slots = (rows[:, None] * width + np.arange(width)).ravel()
            table.array[slots] = table.fill
            table.touch(slots)
        self._free = sorted(self._free + rows.tolist())

    def restored(self) -> None:
        """Finds the free rows again. To be called after the tables were loaded."""
        self._free = [row for row, user in enumerate(self.names.ids) if not user]
        self.last.resize(self.size)  # where an earlier release wrote no such table: not known

    def duplicates(self, user: Index, key: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[n] which of these events, in the order of the batch, are duplicates (see `model/history.py`).

        `user` [n]: rows. `key` [n]: the events' keys.
        """
        known = self.keys.array[: self.size * LATEST].reshape(-1, LATEST)[user]  # [n, LATEST]
        met: NDArray[np.bool_] = (known == key[:, None]).any(1)
        order = np.lexsort((key, user))
        again = (user[order][1:] == user[order][:-1]) & (key[order][1:] == key[order][:-1])
        met[order[1:][again]] = True
        # A key met before is a duplicate, unless enough of the user's events were accepted in between. So where the
        # user has several events in the batch, they are taken one by one
        duplicate = met.copy()
        users = np.unique(user[met])
        starts, ends = (np.searchsorted(user[order], users, side).tolist() for side in ("left", "right"))
        for one, start, end in zip(users.tolist(), starts, ends, strict=True):
            if end - start > 1:
                theirs, latest = np.sort(order[start:end]), self._latest_keys(one)
                duplicate[theirs] = [not accept(latest, each) for each in key[theirs].tolist()]
        return duplicate

    def _latest_keys(self, user: int) -> "array[int]":
        """The keys of the user's latest accepted events, latest last."""
        ring = self.keys.array[user * LATEST : (user + 1) * LATEST].tolist()
        oldest = int(self.counts.array[user, 0]) % LATEST
        return array("q", [key for key in ring[oldest:] + ring[:oldest] if key != NO_KEY])

    def histories(self, user: Index, item: Index, joins: NDArray[np.bool_]) -> NDArray[np.int32]:
        """[n, L] the history before each event, most recent last, -1 for padding.

        `user` [n] and `item` [n]: rows of the batch's events, in order. `joins` [n]: whether the event's item is part
        of the histories of later events.
        """
        length = self.length
        if not len(user):
            return np.empty((0, length), np.int32)
        distinct, inverse = np.unique(user, return_inverse=True)
        targets = self.counts.array[distinct, 1].astype(np.int64)  # [u]
        slots = distinct[:, None] * length + (targets[:, None] + np.arange(length)) % length  # oldest first
        stored = self.history.array[slots]  # [u, L]
        # flat holds for each user the stored L items, then the items that join. An event after r joining ones of its
        # user has the window of L that ends before the next
        new = np.bincount(inverse[joins], minlength=len(distinct))
        starts = np.cumsum(new) - new + np.arange(len(distinct)) * length
        flat = np.empty(int(new.sum()) + stored.size, np.int32)
        flat[(starts[:, None] + np.arange(length)).ravel()] = stored.ravel()
        position = starts[inverse] + rank_within(inverse, joins)
        flat[(position + length)[joins]] = item[joins]
        windows = np.lib.stride_tricks.sliding_window_view(flat, length)
        histories: NDArray[np.int32] = windows[position]
        return histories

    def idle(self, user: Index, ts: NDArray[np.float64]) -> NDArray[np.float32]:
        """[n] seconds from the user's item before to each of these events, at least 0; NOT_KNOWN where there is none.

        `user` [n]: rows, and `ts` [n]: epoch seconds, of events in order that join histories."""
        order = np.argsort(user, kind="stable")
        before = self.last.array[user].astype(np.float64)
        again = np.flatnonzero(user[order][1:] == user[order][:-1])
        before[order[again + 1]] = ts[order[again]]
        waited = np.maximum(ts - before, 0.0)
        return np.where(before == NOT_KNOWN, NOT_KNOWN, waited).astype(np.float32)

    def append_items(self, user: Index, item: Index, ts: NDArray[np.float64]) -> None:
        """Adds items [n] to the histories of users [n], in order. `ts` [n]: epoch seconds."""
        targets = self.counts.array[:, 1]
        self._append(self.history, self.length, user, item, targets)
        self.last.array[user] = ts  # of several events of a user the last is written last
        self.last.touch(user)

    def append_keys(self, user: Index, key: NDArray[np.int64], clock: int) -> None:
        """Adds the keys [n] of accepted events to those of users [n], in order, and counts the events."""
        self._append(self.keys, LATEST, user, key, self.counts.array[:, 0])
        self.counts.array[user, 2] = clock

    def _append(self, table: RowTable, width: int, user: Index, value: Index, counts: NDArray[np.int64]) -> None:
        if not len(user):
            return
        rank = rank_within(user, np.ones(len(user), np.bool_))
        many = np.bincount(user, minlength=int(user.max()) + 1)
        kept = rank >= many[user] - width  # else a slot would be written twice
        slots = (user * width + (counts[user] + rank) % width)[kept]
        table.array[slots] = value[kept]
        table.touch(slots)
        distinct = np.flatnonzero(many)
        counts[distinct] += many[distinct]
        self.counts.touch(distinct)

    def forget_items(self, expired: NDArray[np.bool_]) -> None:
        """Takes expired items out of the histories. `expired` [N]: by row."""
        history = self.history.array[: self.history.size]
        gone = np.flatnonzero((history >= 0) & expired[history])
        history[gone] = -1
        self.history.touch(gone)


def rank_within(group: Index, counted: NDArray[np.bool_]) -> Index:
    """[n] how many earlier entries of the same group are `counted` [n]."""
    order = np.argsort(group, kind="stable")
    ordered, one = group[order], counted[order].astype(np.int64)
    before = np.cumsum(one) - one
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(ordered) else order
    within = before - np.repeat(before[starts], np.diff(np.concatenate([starts, [len(ordered)]])))
    rank = np.empty(len(ordered), np.int64)
    rank[order] = within
    return rank
