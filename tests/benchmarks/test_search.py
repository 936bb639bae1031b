import numpy as np

from benchmarks.quality.protocol import WARM_UP
from benchmarks.quality.search import search
from benchmarks.rivals.rival import Entry, Events, Floats, Index, Sizes
from tests.benchmarks.worlds import random_stream, stream_of


class Favourite:
    """Lists one item first. Notes the events that any of its kind has learned from."""

    learned: list[tuple[int, int]]

    def __init__(self, sizes: Sizes, *, item: int, noise: int = 0) -> None:
        self._item = item
        Favourite.learned = []

    def learn(self, events: Events) -> None:
        Favourite.learned += zip(events.user.tolist(), events.item.tolist(), strict=True)

    def scores(self, user: int, history: Index, n_items: int) -> Floats:
        found: Floats = (np.arange(n_items) == self._item).astype(np.float64)
        return found


GRID = {"hide_seen": (False,), "item": (0, 1, 2), "noise": (0, 1)}


def test_settings_are_found_in_the_first_fifth_alone() -> None:
    n = 5_000
    early = [(at % 7, (0, 1, 1, 1, 2)[at % 5]) for at in range(n // 5)]  # item 1 is best here
    late = [(at % 7, 2) for at in range(n - n // 5)]  # and item 2 in the rest
    found = search(stream_of(early + late), Entry("favourite", Favourite, GRID))
    assert found.settings == {"hide_seen": False, "item": 1, "noise": 0}
    assert found.trials == 4
    assert Favourite.learned == early


def test_what_comes_after_the_first_fifth_changes_nothing() -> None:
    entry = Entry("favourite", Favourite, GRID)
    one, other = random_stream(6_000, users=5, items=40), random_stream(6_000, seed=1, users=5, items=40)
    fifth = int(WARM_UP * 6_000)
    pairs = [list(zip(s.events.user.tolist(), s.events.item.tolist(), strict=True)) for s in (one, other)]
    assert search(one, entry) == search(stream_of(pairs[0][:fifth] + pairs[1][fifth:]), entry)


def test_of_equal_values_the_earlier_stays() -> None:
    stream = stream_of([(at % 7, at % 3) for at in range(5_000)])
    assert search(stream, Entry("favourite", Favourite, {"item": (0,), "noise": (1, 0)})).settings["noise"] == 1
