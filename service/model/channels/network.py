"""The network: an encoder makes a direction of each history, and the score of an item is the cosine to it.

The blend (ranker.py) learns how much the cosine counts beside other channels' scores. This file is what readers need;
learning_network.py is how the network learns.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from model_store.weights import Array, Update
from service.model.channel import AddScores, Channel, Traits
from service.model.config import AtLeastOne, Positive, Section, Share
from service.model.contexts import Contexts
from service.model.encoders.decay import Entries, decay_parameters, encode, normalise
from service.model.row_table import RowTable
from service.model.selection import best_rows

Index = NDArray[np.int64]

ROWS = "item/row"


class NetworkConfig(Section):
    dim: AtLeastOne = 64  # 128 bought little and doubles what travels
    hidden: AtLeastOne = 128
    negatives: AtLeastOne = 2_048  # a step; 1,024 cost .006 of HR@20 and .009 of MRR@20, and a step is a third faster
    row_rate: Positive = 0.1  # row-wise Adagrad; .07 has a little less HR@20 and more MRR@20, .14 less of both
    dense_rate: Positive = 2e-3
    lag_rate: Positive = 1e-2  # of the lag weights; high, because they are few and needed soon
    decay: Annotated[float, Field(ge=0)] = 1e-2  # weight decay of the dense layers
    replay_capacity: AtLeastOne = 200_000
    replay_recent: AtLeastOne = 20_000
    replay_recent_share: Share = 0.7
    dislikes: Annotated[float, Field(ge=0)] = 0.0  # weight of a dislike; 0: nothing is learned from dislikes
    dropout: Share = (
        0.15  # share of a replayed history's items that is left out; 0.3 had .003 less HR@20, 0 had as much
    )


class Network:
    """A reader's network: it holds the directions of the item rows, not the rows."""

    name = "network"
    width = 1  # the cosine
    personal = True

    def __init__(self, config: NetworkConfig, length: int, device: str) -> None:
        """`length` L: items of a history."""
        self.config = config
        self.dense = decay_parameters(config.dim, config.hidden, length, device)
        self.unit = RowTable("", (config.dim,), torch.float32, device=device)  # the rows' directions

    @property
    def traits(self) -> Traits:
        return Traits(learned=frozenset({ROWS, *self.dense.names}))

    @property
    def tables(self) -> Sequence[RowTable]:
        return []

    @property
    def tensors(self) -> dict[str, Array]:
        return self.dense.tensors()

    def resize(self, size: int) -> None:
        self.unit.resize(size)

    def forget(self, rows: Index) -> None:
        self.write(rows, torch.zeros(len(rows), self.config.dim, device=self.unit.data.device))

    def write(self, rows: Index, values: Tensor) -> None:
        """Sets rows [n] to values [n, D]."""
        self.unit.data[torch.from_numpy(rows).to(self.unit.data.device)] = normalise(values)[0]

    def apply(self, update: Update) -> None:
        if self.dense.are_in(update.tensors):
            self.dense.load(update.tensors)
        if (changed := update.tables.get(ROWS)) is not None:
            self.resize(changed.size)
            values = torch.from_numpy(np.array(changed.values)).to(self.unit.data)
            self.write(np.array(changed.index), values)  # copies: arrays of an update may be read-only

    def candidates(self, contexts: Contexts, n: int, clock: int) -> Index:
        """The items nearest to the history's direction; none for an empty history."""
        size = self.unit.size
        cosine = self._directions(contexts) @ self.unit.data[:size].T
        best = best_rows(cosine, n, least=-np.inf)
        best[contexts.offsets[1:] == contexts.offsets[:-1]] = -1
        return best

    def score(self, contexts: Contexts, rows: Tensor, clock: int) -> Tensor:
        directions = self._directions(contexts)
        return torch.einsum("bd,bcd->bc", directions, self.unit.data[rows]).unsqueeze(2)

    def add_common(self, weights: Tensor, clock: int, scores: Tensor, start: int) -> None:
        """Nothing: the cosine depends on the history."""

    def adder(self, contexts: Contexts, weights: Tensor) -> AddScores:
        query = self._directions(contexts) * weights  # [B, D]

        def add(scores: Tensor, start: int) -> None:
            scores.addmm_(query, self.unit.data[start : start + scores.shape[1]].T)

        return add

    def share(self, other: Channel) -> None:
        """Nothing: all of its tables are learned by gradient."""

    def _directions(self, contexts: Contexts) -> Tensor:
        """[B, D] of length 1; 0 for an empty history."""
        entries = Entries.of(contexts, contexts.rows, self.unit.data.device)
        return encode(self.dense, self.unit.data, entries).direction
