"""Decayed popularity: how often an item was the target lately, at several half-lives.

Forward decay (Cormode, Shkapenyuk, Srivastava, Xu: "Forward Decay: A Practical Time Decay Model for Streaming Systems",
ICDE 2009): an event at time t weighs exp(lambda t), which never changes, and a reader divides by exp(lambda now). So
only the rows of the events themselves are written. Sums of such weights overflow, so the table keeps their logarithms,
in float64: at a billion events and a half-life of a thousand, lambda t is 7e5, known to 1e-10.

Time is the event clock, the number of accepted events, so that it is the same at any speed of replay.
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
from service.model.config import AtLeastOne, Positive, Section
from service.model.contexts import Contexts
from service.model.kernels import popularity as kernels
from service.model.leaders import Leaders
from service.model.query import Query
from service.model.row_table import RowTable

# The least count of an item, which keeps the logarithm finite. A bound, because a sum (which would be smoother) needs
# exp and log when a million items are scored. An event of five half-lives ago still counts for more.
FLOOR = 0.02


class PopularityConfig(Section):
    half_lives: tuple[Positive, ...] = (
        1_000.0,
        20_000.0,
    )  # events: what is popular now, and what is popular on the whole
    # counts, the first and the last event of each item: for the features of a ranker, which earlier releases had not
    events: bool = False
    candidates: AtLeastOne = 20  # at each of the two shortest half-lives; 150 reach more, and lists are worse


LEADERS = 256  # the most popular that are known at any time: lists without neighbours are filled with them


class Popularity:
    """`table` [N, K]: log of the sum of exp(lambda_k t) over an item's events; -inf where there were none."""

    name = "popularity"
    renews = True
    personal = False
    traits = Traits(logarithms=frozenset({"item/popularity"}))

    def __init__(self, config: PopularityConfig, device: str = "cpu") -> None:
        self.half_lives = np.array(config.half_lives, dtype=np.float64)  # [K] in events
        self.width = len(self.half_lives)
        self.rate = math.log(2) / self.half_lives  # [K] lambda
        self.table = RowTable("item/popularity", (self.width,), torch.float64, fill=-math.inf, device=device)
        self.config = config
        # [N, 3] how many events, the event clock of the first, the time of the last in epoch seconds
        self.events = RowTable("item/events", (3,), torch.float64)
        self.feature_names = tuple(f"count_{half:g}" for half in config.half_lives) + kernels.OF_COUNTS
        self.leading = min(1, self.width - 1)  # by the second half-life alone the channel would order items
        self._leaders = Leaders(LEADERS, min(2, self.width))

    @property
    def tables(self) -> list[RowTable]:
        return [self.table, self.events] if self.config.events else [self.table]

    @property
    def tensors(self) -> dict[str, Array]:
        return {"popularity/half_life": self.half_lives.copy()}

    # -- for readers ---------------------------------------------------------------------------------------------------

    def resize(self, size: int) -> None:
        if size > self.table.size:
            self._leaders.wrote(np.arange(self.table.size, size))
        for table in self.tables:
            table.resize(size)

    def forget(self, rows: NDArray[np.int64]) -> None:
        self.table.put(rows, -math.inf)
        if self.config.events:
            self.events.put(rows, 0.0)
        self._leaders.fell()

    def apply(self, update: Update) -> None:
        for table in self.tables:
            if (changed := update.tables.get(table.name)) is not None:
                table.apply(changed)
        if (counted := update.tables.get(self.table.name)) is not None:
            # a count falls only where an item was expired, and then the row begins anew
            fell = np.isneginf(np.asarray(counted.values)).any()
            self._leaders.fell() if fell or update.full else self._leaders.wrote(np.array(counted.index))

    def look(self, query: Query) -> Look:
        """Proposes the most popular at the two shortest half-lives, the same for every history."""
        counted, most = self.table.array[: self.table.size], self.config.candidates
        leading = [self._leaders.of(counted, column) for column in range(min(2, self.width))]
        free = [rows[~query.shut[rows]] for rows in leading]
        best = list(dict.fromkeys(row for rows in free for row in rows[:most].tolist()))
        candidates = np.repeat(np.array([best], np.int32).reshape(1, -1), query.n, axis=0)
        return _Looked(self, query, candidates, free[0].astype(np.int32))

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
        return self.features(clock, rows.reshape(-1)).view(*rows.shape, self.width)

    def add_common(self, weights: Tensor, clock: int, scores: Tensor, start: int) -> None:
        stop = min(start + scores.shape[1], self.table.size)
        scores[:, : stop - start] += weights @ self.features(clock, slice(start, stop)).T

    def adder(self, contexts: Contexts, weights: Tensor) -> None:
        """None: popularity does not depend on histories."""

    def share(self, other: Channel) -> None:
        assert isinstance(other, Popularity)
        self.table, self.events, self._leaders = other.table, other.events, other._leaders

    # -- for the trainer -----------------------------------------------------------------------------------------------

    def begin(self, rows: NDArray[np.int64], ids: Sequence[str]) -> None:
        """Nothing: the row of a new item is empty, a count of 0."""

    def describe(self, rows: NDArray[np.int64], changes: Sequence[ItemChange]) -> None:
        """Nothing: only events are counted."""

    def learn(self, lesson: Lesson) -> Taught:
        """Nothing here is learned by gradient."""
        return Taught()

    def observe(self, examples: Examples, disliked: Examples) -> None:
        """Adds the examples to the counts of their items, each with its weight. What is disliked does not count."""
        rows, times, weight = examples.item, examples.time, examples.weight
        if not len(rows):
            return
        unique, inverse = np.unique(rows, return_inverse=True)
        latest = times.max()
        # relative to the latest event of the batch, so that exp() stays within (0, 1]
        age = (latest - times).astype(np.float64)
        fresh = np.stack(
            [np.bincount(inverse, weight * np.exp(-rate * age), minlength=len(unique)) for rate in self.rate], axis=1
        )  # [u, K]
        index = torch.from_numpy(unique).to(self.table.data.device)
        added = torch.from_numpy(np.log(fresh) + self.rate * latest).to(self.table.data.device)
        self.table.data[index] = torch.logaddexp(self.table.data[index], added)
        self.table.touch(unique)
        self._leaders.wrote(unique)
        if self.config.events:
            self._count_events(unique, inverse, examples)

    def _count_events(self, unique: NDArray[np.int64], inverse: NDArray[np.int64], examples: Examples) -> None:
        """Counts the examples of the items `unique`, among which example n has item unique[inverse[n]]."""
        events = self.events.array
        new = unique[events[unique, 0] == 0]
        events[new, 1] = np.inf
        np.minimum.at(events[:, 1], examples.item, examples.time)
        events[unique, 0] += np.bincount(inverse, minlength=len(unique))
        events[examples.item, 2] = examples.ts  # of several events of an item the last is written last
        self.events.touch(unique)

    def log_counts(self, clock: int, rows: Tensor | slice | None = None) -> Tensor:
        """[n, K] float64: log of the rows' decayed counts at `clock`, -inf for none; of all rows by default."""
        data = self.table.data
        if isinstance(rows, Tensor):
            logs = data.index_select(0, rows)
        else:
            logs = data[: self.table.size] if rows is None else data[rows]
        return logs - torch.from_numpy(self.rate * clock).to(logs.device)

    def features(self, clock: int, rows: Tensor | slice | None = None) -> Tensor:
        """[n, K] float32: log(max(count, FLOOR)), the scores of the rows; of all by default."""
        return self.log_counts(clock, rows).clamp_(min=math.log(FLOOR)).float()

    def has_met(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[n] whether any event of these items was counted."""
        counts = self.table.data[torch.from_numpy(rows).to(self.table.data.device), 0]
        met: NDArray[np.bool_] = torch.isfinite(counts).cpu().numpy()
        return met

    def restore(self, state: State) -> None:
        for table in self.tables:
            table.load(state.table(table.name))
        self._leaders.fell()

    def reset(self, state: State, ids: Sequence[str]) -> None:
        """Nothing: counts stay."""


class _Looked:
    def __init__(
        self, channel: Popularity, query: Query, candidates: NDArray[np.int32], reserve: NDArray[np.int32]
    ) -> None:
        self.candidates, self.reserve = candidates, reserve
        self._channel, self._query = channel, query

    def kept(self, b: int) -> object:
        return None

    def describe(self, rows: NDArray[np.int32], offsets: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        channel, query = self._channel, self._query
        kernels.features(
            query.rows, query.offsets, channel.table.array, channel.rate * query.clock,
            channel.events.array, math.log(FLOOR), query.clock, query.now, rows, offsets, out,
        )  # fmt: skip
