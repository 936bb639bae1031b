"""What a rival is: it learns from events and scores items. Ranking, ties and what is hidden are the harness's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]
Settings = dict[str, Any]  # name -> value: a number, a word or a bool, as JSON has them


class Events(NamedTuple):
    """n events as columns. Users and items are rows, numbered as they first appear."""

    user: Index  # [n]
    item: Index  # [n]
    time: Index  # [n] epoch milliseconds
    value: NDArray[np.float64]  # [n] the rating; NaN where the event has none

    def part(self, start: int, stop: int) -> "Events":
        within = slice(start, stop)
        return Events(self.user[within], self.item[within], self.time[within], self.value[within])


class Sizes(NamedTuple):
    """How much there will be in all: for allocating rows, never for learning."""

    users: int
    items: int
    events: int  # also tells a model that is retrained every 5% of the stream when that is


class Rival(Protocol):
    def learn(self, events: Events) -> None:
        """Takes in the next events, 256 at most, in their order. All are in the past when it is called."""

    def scores(self, user: int, history: Index, n_items: int) -> Floats:
        """[n_items] how much each item known so far should be listed; -inf: never. No NaN.

        `history` [h]: all items of the user so far, the latest last; unlike what was learned it is never behind. It is
        not empty. The array returned may be changed by the next call, and is not changed by the caller.
        """


@dataclass(frozen=True)
class Entry:
    """A rival in the table: how it is made, and which settings are tried."""

    title: str
    make: Callable[..., Rival]  # (sizes, **settings)
    # Setting -> the values tried; the first is where the search begins. `hide_seen` is the harness's: whether items
    # that the user has had already are left out of the list.
    grid: Mapping[str, tuple[Any, ...]]
    lists: int | None = None  # how many events of the stream are ranked at most, evenly spread; None: all
    search_lists: int = 20_000  # the same for each trial of the search: a standard error of HR@20 of .0035 at most
    packages: tuple[str, ...] = ()  # whose versions are noted
    revision: int = 1  # raised when the same settings give other figures: kept results of another one are not used
