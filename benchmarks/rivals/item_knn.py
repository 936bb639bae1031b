"""Item-KNN over the order of events: what came after (and before) the user's latest items, in everyone's streams.

An event on y after the user's last items x_1 (the latest), x_2, ..., x_window adds 1/d to w(x_d -> y). For a history
h_1 (the latest), h_2, ..., of 20 items at most,

    score(y) = sum over k of k^-recency * (w(h_k -> y) + backward * w(y -> h_k)) / (total(h_k) + shrinkage)

divided by (events of y)^popularity_power; then come reminders (`reminder.py`). An item that follows itself is its own
neighbour (self-transitions), as any other would be. A row keeps its 128 heaviest neighbours, and everything in it loses
half its weight with each `half_life` of weight that comes in. Sources: Sarwar et al., WWW 2001 (item-based neighbours);
Deshpande and Karypis, TOIS 2004 (normalised rows); Ludewig and Jannach, UMUAI 2018 (within sessions, with recency).
"""

import math

import numpy as np
from numpy.typing import NDArray

from benchmarks.rivals.compiled import compiled
from benchmarks.rivals.reminder import remind
from benchmarks.rivals.rival import Entry, Events, Floats, Index, Sizes

LAST = 20  # items of a history that count
SLOTS = 128  # neighbours a row

Ints = NDArray[np.int32]
Reals = NDArray[np.float32]


class ItemKnn:
    def __init__(
        self,
        sizes: Sizes,
        *,
        window: int = 10,
        recency: float = 1.0,
        backward: float = 0.5,
        shrinkage: float = 10.0,
        popularity_power: float = 0.0,
        half_life: float = 0.0,
        reminder: float = 0.0,
    ) -> None:
        """half_life: in units of weight that the row received; 0: nothing is forgotten."""
        self._neighbour = np.full((sizes.items, SLOTS), -1, np.int32)  # [items, slots]; -1: empty, and all after it
        self._weight = np.zeros((sizes.items, SLOTS, 2), np.float32)  # [..., 0]: came after, [..., 1]: came before
        self._total = np.zeros((sizes.items, 2), np.float32)  # of all that came in, also of what was dropped
        self._count = np.zeros(sizes.items)  # [items] events
        self._latest = np.full((sizes.users, LAST), -1, np.int32)  # [users, 20] the latest first; -1: none
        self._window, self._recency, self._backward = window, recency, backward
        self._shrinkage, self._power, self._reminder = shrinkage, popularity_power, reminder
        self._fading = math.log(2) / half_life if half_life else 0.0

    def learn(self, events: Events) -> None:
        _learn(
            events.user,
            events.item,
            self._latest,
            self._neighbour,
            self._weight,
            self._total,
            self._count,
            self._window,
            self._backward,
            self._fading,
        )

    def scores(self, user: int, history: Index, n_items: int) -> Floats:
        out = np.zeros(n_items)
        _score(
            history[-LAST:],
            self._neighbour,
            self._weight,
            self._total,
            self._recency,
            self._backward,
            self._shrinkage,
            out,
        )
        if self._power:
            out /= (self._count[:n_items] + 1.0) ** self._power
        if self._reminder:
            remind(out, history[-LAST:], self._recency, self._reminder)
        return out


@compiled
def _learn(
    user: Index,
    item: Index,
    latest: Ints,
    neighbour: Ints,
    weight: Reals,
    total: Reals,
    count: NDArray[np.float64],
    window: int,
    backward: float,
    fading: float,
) -> None:
    for n in range(len(user)):
        u, y = user[n], item[n]
        count[y] += 1.0
        for d in range(window):
            x = latest[u, d]
            if x < 0:
                break
            amount = 1.0 / (d + 1.0)
            _add(x, y, 0, amount, neighbour, weight, total, backward, fading)
            if x != y:
                _add(y, x, 1, amount, neighbour, weight, total, backward, fading)
        for d in range(latest.shape[1] - 1, 0, -1):
            latest[u, d] = latest[u, d - 1]
        latest[u, 0] = y


@compiled
def _add(
    x: int,
    y: int,
    side: int,
    amount: float,
    neighbour: Ints,
    weight: Reals,
    total: Reals,
    backward: float,
    fading: float,
) -> None:
    """Adds to y's slot in the row of x. In a full row the lightest gives way if it weighs no more than what comes."""
    slots = neighbour.shape[1]
    if fading > 0.0:
        kept = math.exp(-fading * amount)
        total[x, 0] *= kept
        total[x, 1] *= kept
        for j in range(slots):
            if neighbour[x, j] < 0:
                break
            weight[x, j, 0] *= kept
            weight[x, j, 1] *= kept
    total[x, side] += amount
    lightest, least = -1, math.inf
    for j in range(slots):
        if neighbour[x, j] == y:
            weight[x, j, side] += amount
            return
        if neighbour[x, j] < 0:
            lightest, least = j, 0.0
            break
        here = weight[x, j, 0] + backward * weight[x, j, 1]
        if here < least:
            lightest, least = j, here
    comes = amount if side == 0 else backward * amount
    if least <= comes:
        neighbour[x, lightest] = y
        weight[x, lightest, side] = amount
        weight[x, lightest, 1 - side] = 0.0
    else:  # it comes to nothing now, and makes room for the next: the lightest loses as much
        weight[x, lightest, 0] *= (least - comes) / least
        weight[x, lightest, 1] *= (least - comes) / least


@compiled
def _score(
    history: Index,
    neighbour: Ints,
    weight: Reals,
    total: Reals,
    recency: float,
    backward: float,
    shrinkage: float,
    out: NDArray[np.float64],
) -> None:
    """Adds to `out` [n_items]; neighbours beyond it are passed over."""
    for k in range(len(history)):
        x = history[len(history) - 1 - k]
        share = (k + 1.0) ** -recency / (total[x, 0] + backward * total[x, 1] + shrinkage)
        for j in range(neighbour.shape[1]):
            y = neighbour[x, j]
            if y < 0:
                break
            if y < len(out):
                out[y] += share * (weight[x, j, 0] + backward * weight[x, j, 1])


ENTRY = Entry(
    title="item-KNN",
    make=ItemKnn,
    grid={
        "hide_seen": (False, True),
        "window": (10, 3, 20),
        "recency": (1.0, 0.5, 2.0),
        "backward": (0.5, 0.0, 1.0),
        "shrinkage": (10.0, 1.0, 50.0, 200.0),
        "popularity_power": (0.0, 0.25, 0.5),
        "half_life": (0, 20, 50, 200, 1_000),
        "reminder": (0.0, 0.1, 0.3, 1.0),
    },
    packages=("numba",),
)
