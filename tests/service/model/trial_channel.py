"""A channel as somebody would add one: what the category of an item did lately.

One file, one line in the registry (`KIND`, which the tests add), one section of the configuration.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consumers.micro_batch import ItemChange
from model_store.weights import Array, State, Update
from service.model.channel import Channel, Examples, Lesson, Look, Taught, Traits
from service.model.config import Positive, Section
from service.model.contexts import Contexts
from service.model.query import Query
from service.model.registry import Kind
from service.model.row_table import IdTable, RowTable
from service.model.selection import best_rows

Index = NDArray[np.int64]
FLOOR = math.log(0.1)


class CategoryConfig(Section):
    half_life: Positive = 100.0  # events


class CategoryLately:
    name = "category"
    width = 1
    personal = False
    renews = True
    feature_names = ("lately",)
    leading = 0
    traits = Traits(logarithms=frozenset({"category/count"}))

    def __init__(self, config: CategoryConfig, device: str = "cpu") -> None:
        self._rate = math.log(2) / config.half_life
        self.of_item = RowTable("category/of_item", (), torch.int32, fill=-1, device=device)  # [N] category; -1: none
        self.count = RowTable("category/count", (), torch.float64, fill=-math.inf, device=device)  # [C] as Popularity's
        self.names = IdTable("trainer/category/name")

    @property
    def tables(self) -> list[RowTable | IdTable]:
        return [self.of_item, self.count, self.names]

    @property
    def tensors(self) -> dict[str, Array]:
        return {}

    def resize(self, size: int) -> None:
        self.of_item.resize(size)

    def forget(self, rows: Index) -> None:
        self.of_item.put(rows, -1)

    def apply(self, update: Update) -> None:
        for table in (self.of_item, self.count):
            if (changed := update.tables.get(table.name)) is not None:
                table.apply(changed)

    def look(self, query: Query) -> Look:
        every = self._known(torch.arange(self.of_item.size), query.clock)
        every[torch.from_numpy(query.shut)] = FLOOR
        best = best_rows(every.unsqueeze(0), 20, least=FLOOR).astype(np.int32)
        return _Looked(self, query, np.repeat(best, query.n, axis=0))

    def describe_more(
        self,
        query: Query,
        kept: Sequence[object],
        rows: NDArray[np.int32],
        offsets: NDArray[np.int64],
        out: NDArray[np.float32],
    ) -> None:
        self.look(query).describe(rows, offsets, out)

    def score(self, contexts: Contexts, rows: Tensor, clock: int) -> Tensor:
        return self._known(rows.reshape(-1), clock).view(*rows.shape, 1)

    def add_common(self, weights: Tensor, clock: int, scores: Tensor, start: int) -> None:
        stop = min(start + scores.shape[1], self.of_item.size)
        scores[:, : stop - start] += weights * self._known(torch.arange(start, stop), clock)

    def adder(self, contexts: Contexts, weights: Tensor) -> None:
        """Histories play no part."""

    def share(self, other: Channel) -> None:
        assert isinstance(other, CategoryLately)
        self.of_item, self.count, self.names = other.of_item, other.count, other.names

    def begin(self, rows: Index, ids: Sequence[str]) -> None:
        """A new item is in no category until the catalogue says so."""

    def describe(self, rows: Index, changes: Sequence[ItemChange]) -> None:
        for row, change in zip(rows.tolist(), changes, strict=True):
            category = self.names.rows_of([change.category])[0]
            if category < 0:
                category = len(self.names)
                self.names.add([change.category], [category])
                self.count.resize(len(self.names))
            self.of_item.put(np.array([row]), int(category))

    def learn(self, lesson: Lesson) -> Taught:
        return Taught()

    def observe(self, examples: Examples, disliked: Examples) -> None:
        of = self.of_item.array[examples.item]
        for category in np.unique(of[of >= 0]).tolist():
            added = np.logaddexp.reduce(self._rate * examples.time[of == category])
            self.count.put(np.array([category]), float(np.logaddexp(self.count.array[category], added)))

    def restore(self, state: State) -> None:
        for table in self.tables:
            table.load(state.table(table.name))

    def reset(self, state: State, ids: Sequence[str]) -> None:
        """Counts stay."""

    def _known(self, rows: Tensor, clock: int) -> Tensor:
        """[n] of items."""
        of = self.of_item.data.index_select(0, rows).long()
        counts = (self.count.data - self._rate * clock).clamp(min=FLOOR)
        return torch.where(of >= 0, counts[of.clamp(min=0)], FLOOR).float()


class _Looked:
    def __init__(self, channel: CategoryLately, query: Query, candidates: NDArray[np.int32]) -> None:
        self.candidates, self.reserve = candidates, np.empty(0, np.int32)
        self._channel, self._query = channel, query

    def kept(self, b: int) -> object:
        return None

    def describe(self, rows: NDArray[np.int32], offsets: Index, out: NDArray[np.float32]) -> None:
        out[:, 0] = self._channel._known(torch.from_numpy(rows.astype(np.int64)), self._query.clock).numpy()


KIND = Kind(
    CategoryConfig,
    lambda section, place: CategoryLately(section, place.device),
    lambda section, place: CategoryLately(section, place.device),
)
