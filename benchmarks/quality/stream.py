"""A file of events as columns."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.rivals.rival import Events, Index, Sizes
from consumers.decode import DecodeRules
from consumers.events import Interaction
from consumers.file_reading import open_reading


@dataclass(frozen=True)
class Stream:
    """n events in the file's order. Users and items are numbered as they first appear, from 0: the items known before
    an event are the rows below `items_known`."""

    name: str
    events: Events  # [n]

    def __len__(self) -> int:
        return len(self.events.user)

    def first(self, n: int) -> "Stream":
        """The first n events, or all if there are fewer."""
        return Stream(self.name, self.events.part(0, n))

    @property
    def sizes(self) -> Sizes:
        user, item = self.events.user, self.events.item
        return Sizes(users=int(user.max(initial=-1)) + 1, items=int(item.max(initial=-1)) + 1, events=len(self))

    @property
    def items_known(self) -> Index:
        """[n] how many items appeared before each event."""
        return _seen_before(self.events.item)

    @property
    def known(self) -> NDArray[np.bool_]:
        """[n] whether the event's user and its item both appeared in earlier events."""
        user, item = self.events.user, self.events.item
        known: NDArray[np.bool_] = (user < _seen_before(user)) & (item < _seen_before(item))
        return known


def _seen_before(row: Index) -> Index:
    """[n] how many different rows came before each place; rows are numbered as they first appear."""
    if not len(row):
        return row
    return np.concatenate([[0], np.maximum.accumulate(row)[:-1] + 1])


def read_stream(path: Path, events: int | None = None) -> Stream:
    """The events of a file that name an item, decoded as the product does; of the first `events` lines, where given.

    Raises: FileError where the file cannot be read.
    """
    reading = open_reading(path, "events", DecodeRules())
    try:
        found = [
            line.outcome
            for line in islice(reading.lines(), events)
            if isinstance(line.outcome, Interaction) and line.outcome.item_id is not None
        ]
    finally:
        reading.file.close()
    return Stream(
        name=path.name.split(".")[0],
        events=Events(
            user=_numbered([event.user_id for event in found]),
            item=_numbered([event.item_id or "" for event in found]),
            time=np.array([event.ts for event in found], np.int64),
            value=np.array([np.nan if event.value is None else event.value for event in found], np.float64),
        ),
    )


def _numbered(names: list[str]) -> Index:
    """A number for each name, by first appearance.

    >>> _numbered(["b", "a", "b"]).tolist()
    [0, 1, 0]
    """
    rows: dict[str, int] = {}
    return np.array([rows.setdefault(name, len(rows)) for name in names], np.int64)
