"""Item neighbours: what came after, and before, the items of a history, in rows that learn from every event.

It proposes the items nearest to the history by one step over the rows and by two. See neighbour_rows.py for how rows
learn, and kernels/near.py for what they say of a history.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from consumers.micro_batch import ItemChange
from model_store.weights import Array, State, Update
from service.model.channel import Channel, Examples, Lesson, Look, Taught, Traits
from service.model.config import AtLeastOne, AtLeastZero, Positive, Section
from service.model.kernels import near
from service.model.neighbour_rows import SMALLEST, NeighbourRows
from service.model.query import Query
from service.model.row_table import RowTable

Index = NDArray[np.int64]
Hops = tuple[NDArray[np.int32], NDArray[np.float32]]
Found = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32], NDArray[np.int16], NDArray[np.float32]]


class NeighboursConfig(Section):
    """The numbers are those of a study on DIGINETICA's first five periods (docs/decisions/learning.md)."""

    slots: AtLeastOne = 64  # neighbours of an item; 32 lose .7 of Recall@20 in percent, 128 gain .1
    reach: AtLeastOne = 10  # items of a history that an event is linked to; 3 lose 1.0 of Recall@20 in percent
    half_life: Positive = 200.0  # units of weight that a row receives; 50 and 800 give the same Recall@20
    backward: AtLeastZero = 0.5  # of a backward weight beside a forward one
    self_weight: AtLeastZero = 0.2  # added for an item of the history itself
    shrinkage: AtLeastZero = 10.0  # added to what a row has received: a row that has seen little says little
    history: AtLeastOne = 20  # items of a history that are asked for neighbours
    hops: AtLeastOne = 20  # best items from which the second step goes; 10 lose .0015 of HR@20 on films
    first: AtLeastOne = 100  # candidates by one step
    second: AtLeastOne = 60  # candidates by two steps

    @field_validator("slots")
    @classmethod
    def _doubles(cls, slots: int) -> int:
        if slots < SMALLEST or slots & (slots - 1):
            raise ValueError(f"a power of two from {SMALLEST} on, since rows double")
        return slots


class Neighbours:
    name = "neighbours"
    renews = False
    traits = Traits()
    feature_names = near.FEATURES
    leading = 2  # `share`: by it alone the channel would order items

    def __init__(self, config: NeighboursConfig) -> None:
        self.config = config
        self.neighbour_rows = NeighbourRows(config.slots, config.half_life, config.backward)
        self._number = np.empty(0, np.int32)  # [N or more] all -1 between two calls
        self._room: tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int16], NDArray[np.float32]] | None = None

    @property
    def tables(self) -> list[RowTable]:
        return self.neighbour_rows.tables

    @property
    def tensors(self) -> dict[str, Array]:
        return {}

    # -- for readers ---------------------------------------------------------------------------------------------------

    def resize(self, size: int) -> None:
        self.neighbour_rows.resize(size)

    def forget(self, rows: Index) -> None:
        self.neighbour_rows.forget(rows)

    def apply(self, update: Update) -> None:
        for table in self.neighbour_rows.shared:
            if (changed := update.tables.get(table.name)) is not None:
                table.apply(changed)

    def share(self, other: Channel) -> None:
        assert isinstance(other, Neighbours)
        self.neighbour_rows.share(other.neighbour_rows)

    def look(self, query: Query) -> Look:
        config, rows = self.config, self.neighbour_rows
        found = self._room_for(query)
        hops = np.empty((query.n, config.hops), np.int32), np.zeros((query.n, config.hops), np.float32)
        candidates = np.full((query.n, config.first + config.second), -1, np.int32)
        near.look(
            query.rows, query.offsets, query.shut,
            rows.place.array, rows.mass.array, rows.item.array, rows.weight.array,
            config.history, config.hops, config.first, config.second,
            config.backward, config.self_weight, config.shrinkage, *found, *hops, candidates,
        )  # fmt: skip
        return _Looked(self, query, candidates, found, hops)

    def describe_more(
        self, query: Query, kept: Sequence[Any], rows: NDArray[np.int32], offsets: Index, out: NDArray[np.float32]
    ) -> None:
        config, learned = self.config, self.neighbour_rows
        hop_rows, hop_weights = (np.stack([each[part] for each in kept]) for part in (0, 1))
        near.features_without_look(
            query.rows, query.offsets, hop_rows, hop_weights,
            learned.place.array, learned.mass.array, learned.item.array, learned.weight.array,
            config.history, config.backward, config.self_weight, config.shrinkage,
            self._numbers(len(query.shut)), rows, offsets, out,
        )  # fmt: skip

    def _numbers(self, size: int) -> NDArray[np.int32]:
        if len(self._number) < size:
            self._number = np.full(2 * size, -1, np.int32)
        return self._number

    def _room_for(self, query: Query) -> Found:
        """Memory is kept from query to query: to have 4 MB cleared by the system takes longer than a look."""
        if self._room is None or len(self._room[0]) < query.n:
            config, n = self.config, query.n
            most = config.history * (config.slots + 1) + config.hops * config.slots  # items near a history
            self._room = (
                np.empty((n, 1 + most), np.int32), np.empty((n, most, 2), np.float32),
                np.empty((n, most, 2), np.int16), np.empty((n, 2), np.float32),
            )  # fmt: skip
        return self._numbers(len(query.shut)), *self._room

    # -- for the trainer -----------------------------------------------------------------------------------------------

    def begin(self, rows: Index, ids: Sequence[str]) -> None:
        """Nothing: the row of a new item is empty."""

    def describe(self, rows: Index, changes: Sequence[ItemChange]) -> None:
        """Nothing: only events are counted."""

    def learn(self, lesson: Lesson) -> Taught:
        """Nothing here is learned by gradient."""
        return Taught()

    def observe(self, examples: Examples, disliked: Examples) -> None:
        for some in (examples, disliked):
            self.neighbour_rows.learn(some.item, some.weight, some.history[:, -self.config.reach :])

    def restore(self, state: State) -> None:
        for table in self.tables:
            table.load(state.table(table.name))
        self.neighbour_rows.restored()

    def reset(self, state: State, ids: Sequence[str]) -> None:
        """Nothing: counts stay."""


class _Looked:
    """What the rows know of a query's histories; valid until the channel looks again."""

    def __init__(
        self, channel: Neighbours, query: Query, candidates: NDArray[np.int32], found: Found, hops: Hops
    ) -> None:
        """`found`: `at`, `near`, `scores`, `ranks` and `totals` of near.py; `hops`: `hop_rows` and `hop_weights`."""
        self.candidates, self.reserve = candidates, np.empty(0, np.int32)
        self._channel, self._query, self._found, self._hops = channel, query, found, hops

    def kept(self, b: int) -> Hops:
        rows, weights = self._hops
        return rows[b].copy(), weights[b].copy()

    def describe(self, rows: NDArray[np.int32], offsets: Index, out: NDArray[np.float32]) -> None:
        learned, query = self._channel.neighbour_rows, self._query
        near.features(
            query.rows, query.offsets,
            learned.place.array, learned.mass.array, learned.item.array, learned.weight.array,
            self._channel.config.shrinkage, *self._found, rows, offsets, out,
        )  # fmt: skip
