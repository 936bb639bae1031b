"""What is chosen most lately: counts of events that lose half their weight every `half_life` events. The same list
for everyone, but for what each has seen."""

import numpy as np

from benchmarks.rivals.rival import Entry, Events, Floats, Index, Sizes


class Popularity:
    def __init__(self, sizes: Sizes, *, half_life: float = 1_000) -> None:
        """half_life: in events."""
        self._counts = np.zeros(sizes.items)  # [items] as of the latest event learned
        self._half_life = half_life

    def learn(self, events: Events) -> None:
        n = len(events.item)
        self._counts *= 0.5 ** (n / self._half_life)
        age = np.arange(n - 1, -1, -1)  # events that came after each
        np.add.at(self._counts, events.item, 0.5 ** (age / self._half_life))

    def scores(self, user: int, history: Index, n_items: int) -> Floats:
        return self._counts[:n_items]


ENTRY = Entry(
    title="popularity, decayed",
    make=Popularity,
    grid={"hide_seen": (False, True), "half_life": (1_000, 100, 300, 3_000, 10_000, 100_000)},
)
