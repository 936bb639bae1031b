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
from service.model.channel import Channel, Examples, Lesson, Taught, Traits
from service.model.config import Positive, Section
from service.model.contexts import Contexts
from service.model.row_table import RowTable
from service.model.selection import best_rows

# The least count of an item, which keeps the logarithm finite. A bound, because a sum (which would be smoother) needs
# exp and log when a million items are scored. An event of five half-lives ago still counts for more.
FLOOR = 0.02


class PopularityConfig(Section):
    half_lives: tuple[Positive, ...] = (
        1_000.0,
        20_000.0,
    )  # events: what is popular now, and what is popular on the whole


class Popularity:
    """`table` [N, K]: log of the sum of exp(lambda_k t) over an item's events; -inf where there were none."""

    name = "popularity"
    personal = False
    traits = Traits(logarithms=frozenset({"item/popularity"}))

    def __init__(self, config: PopularityConfig, device: str = "cpu") -> None:
        self.half_lives = np.array(config.half_lives, dtype=np.float64)  # [K] in events
        self.width = len(self.half_lives)
        self.rate = math.log(2) / self.half_lives  # [K] lambda
        self.table = RowTable("item/popularity", (self.width,), torch.float64, fill=-math.inf, device=device)

    @property
    def tables(self) -> list[RowTable]:
        return [self.table]

    @property
    def tensors(self) -> dict[str, Array]:
        return {"popularity/half_life": self.half_lives.copy()}

    # -- for readers ---------------------------------------------------------------------------------------------------

    def resize(self, size: int) -> None:
        self.table.resize(size)

    def forget(self, rows: NDArray[np.int64]) -> None:
        self.table.put(rows, -math.inf)

    def apply(self, update: Update) -> None:
        if (changed := update.tables.get(self.table.name)) is not None:
            self.table.apply(changed)

    def candidates(self, contexts: Contexts, n: int, clock: int) -> NDArray[np.int64]:
        """The most popular at the shortest half-life, the same for every history."""
        counted = self.log_counts(clock)[:, 0]
        best = best_rows(counted.unsqueeze(0), n, least=-math.inf)
        return np.repeat(best, contexts.n, axis=0)

    def score(self, contexts: Contexts, rows: Tensor, clock: int) -> Tensor:
        return self.features(clock, rows.reshape(-1)).view(*rows.shape, self.width)

    def add_common(self, weights: Tensor, clock: int, scores: Tensor, start: int) -> None:
        stop = min(start + scores.shape[1], self.table.size)
        scores[:, : stop - start] += weights @ self.features(clock, slice(start, stop)).T

    def adder(self, contexts: Contexts, weights: Tensor) -> None:
        """None: popularity does not depend on histories."""

    def share(self, other: Channel) -> None:
        assert isinstance(other, Popularity)
        self.table = other.table

    # -- for the trainer -----------------------------------------------------------------------------------------------

    def begin(self, rows: NDArray[np.int64], ids: Sequence[str]) -> None:
        """Nothing: the row of a new item is empty, a count of 0."""

    def describe(self, rows: NDArray[np.int64], changes: Sequence[ItemChange]) -> None:
        """Nothing: only events are counted."""

    def learn(self, lesson: Lesson) -> Taught:
        """Nothing here is learned by gradient."""
        return Taught()

    def observe(self, examples: Examples) -> None:
        """Adds the examples to the counts of their items, each with its weight."""
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
        self.table.load(state.table(self.table.name))

    def reset(self, state: State, ids: Sequence[str]) -> None:
        """Nothing: counts stay."""
