"""VS-KNN: sessions like this one, and what else was in them. A session is a user's events.

The latest 200 sessions of each of the last 20 items are looked at. A session's likeness is the sum, over the items it
shares, of k^-recency, where the item is the k-th latest of ours. The `neighbours` most alike count: an item of theirs
(the last 50 of each) gains

    likeness * distance^-decay * rarity^idf,   and `look_back` times that if it stands before the shared item,

where the distance is from the latest shared item, and rarity = log(events / events of the item) / log(events). Then
come reminders (`reminder.py`). Sources: Ludewig and Jannach, UMUAI 2018 (vector multiplication session-KNN); Garg et
al., SIGIR 2019 (STAN: distance from the shared item).
"""

import math

import numpy as np
from numpy.typing import NDArray

from benchmarks.rivals.compiled import compiled
from benchmarks.rivals.reminder import remind
from benchmarks.rivals.rival import Entry, Events, Floats, Index, Sizes

LAST = 20  # items of this session that count
SAMPLE = 200  # latest sessions of an item
LENGTH = 50  # latest items of a session that are kept

Ints = NDArray[np.int32]
Doubles = NDArray[np.float64]


class VsKnn:
    def __init__(
        self,
        sizes: Sizes,
        *,
        neighbours: int = 100,
        recency: float = 1.0,
        decay: float = 0.5,
        look_back: float = 0.7,
        idf: float = 0.5,
        reminder: float = 0.0,
    ) -> None:
        self._session = np.full((sizes.users, LENGTH), -1, np.int32)  # [users, 50] items, at their place modulo 50
        self._length = np.zeros(sizes.users, np.int32)  # [users] events
        self._visitor = np.full((sizes.items, SAMPLE), -1, np.int32)  # [items, 200] users, a ring; -1: none yet
        self._place = np.zeros((sizes.items, SAMPLE), np.int32)  # [items, 200] where in that user's session
        self._visits = np.zeros(sizes.items, np.int64)  # [items] events
        self._likeness = np.zeros(sizes.users)  # [users] all 0 between calls
        self._met_at = np.zeros((sizes.users, 2), np.int32)  # [users] place of the latest shared item; k last counted
        self._events = 0
        self._neighbours, self._recency, self._decay = neighbours, recency, decay
        self._look_back, self._idf, self._reminder = look_back, idf, reminder

    def learn(self, events: Events) -> None:
        self._events += len(events.user)
        _learn(events.user, events.item, self._session, self._length, self._visitor, self._place, self._visits)

    def scores(self, user: int, history: Index, n_items: int) -> Floats:
        out = np.zeros(n_items)
        _score(
            user,
            history[-LAST:],
            self._session,
            self._length,
            self._visitor,
            self._place,
            self._visits,
            self._likeness,
            self._met_at,
            math.log(max(2, self._events)),
            self._neighbours,
            self._recency,
            self._decay,
            self._look_back,
            self._idf,
            out,
        )
        if self._reminder:
            remind(out, history[-LAST:], self._recency, self._reminder)
        return out


@compiled
def _learn(
    user: Index, item: Index, session: Ints, length: Ints, visitor: Ints, place: Ints, visits: NDArray[np.int64]
) -> None:
    for n in range(len(user)):
        u, y = user[n], item[n]
        slot = visits[y] % visitor.shape[1]
        visitor[y, slot], place[y, slot] = u, length[u]
        visits[y] += 1
        session[u, length[u] % session.shape[1]] = y
        length[u] += 1


@compiled
def _score(
    user: int,
    history: Index,
    session: Ints,
    length: Ints,
    visitor: Ints,
    place: Ints,
    visits: NDArray[np.int64],
    likeness: Doubles,
    met_at: Ints,
    log_events: float,
    neighbours: int,
    recency: float,
    decay: float,
    look_back: float,
    idf: float,
    out: Doubles,
) -> None:
    """Adds to `out` [n_items]; items beyond it are passed over. A user is not a neighbour of their own."""
    sample, kept = visitor.shape[1], session.shape[1]
    found = np.empty(len(history) * sample, np.int64)
    n = 0
    for k in range(len(history)):
        x = history[len(history) - 1 - k]
        repeated = False
        for earlier in range(k):
            repeated = repeated or history[len(history) - 1 - earlier] == x
        if repeated:
            continue
        for back in range(min(visits[x], sample)):
            slot = (visits[x] - 1 - back) % sample
            other = visitor[x, slot]
            if other == user:
                continue
            if likeness[other] == 0.0:
                found[n] = other
                n += 1
                met_at[other, 0], met_at[other, 1] = place[x, slot], -1
            if met_at[other, 1] != k:  # a session that has the item twice shares it once
                met_at[other, 1] = k
                likeness[other] += (k + 1.0) ** -recency
    alike = np.empty(n)
    for i in range(n):
        alike[i] = likeness[found[i]]
        likeness[found[i]] = 0.0
    order = np.argsort(-alike, kind="mergesort")  # of equal ones the first found, whose item is later
    for i in order[:neighbours]:
        other = found[i]
        for at in range(max(0, length[other] - kept), length[other]):
            y = session[other, at % kept]
            if y >= len(out):
                continue
            distance = at - met_at[other, 0]
            gain = alike[i]
            if distance != 0:
                gain *= abs(distance) ** -decay
            if distance < 0:
                gain *= look_back
            rarity = max(0.0, 1.0 - math.log(max(1, visits[y])) / log_events)
            out[y] += gain * rarity**idf


ENTRY = Entry(
    title="VS-KNN",
    make=VsKnn,
    grid={
        "hide_seen": (False, True),
        "neighbours": (100, 300, 1_000),
        "recency": (1.0, 0.5, 2.0),
        "decay": (0.5, 0.0, 1.0),
        "look_back": (0.7, 0.0, 1.0),
        "idf": (0.5, 0.0, 1.0),
        "reminder": (0.0, 0.1, 0.3, 1.0),
    },
    packages=("numba",),
)
