"""The network: an encoder makes a direction of each history, and the score of an item is the cosine to it.

The blend (blend.py) learns how much the cosine counts beside other channels' scores. This file is what readers need;
learning_network.py is how the network learns.
"""

from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from model_store.weights import Array, Update
from service.model.channel import AddScores, Channel, Look, Traits
from service.model.config import AtLeastOne, Positive, Section, Share
from service.model.contexts import Contexts
from service.model.encoders.directions import normalise
from service.model.encoders.entries import Entries
from service.model.encoders.kinds import EncoderName, encoder_of
from service.model.kernels.order import place_in_list
from service.model.query import Query
from service.model.retrieval import Retrieval
from service.model.row_table import RowTable

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
    candidates: AtLeastOne = 100
    replay_capacity: AtLeastOne = 200_000
    replay_recent: AtLeastOne = 20_000
    replay_recent_share: Share = 0.7
    dislikes: Annotated[float, Field(ge=0)] = 0.0  # weight of a dislike; 0: nothing is learned from dislikes
    dropout: Share = (
        0.15  # share of a replayed history's items that is left out; 0.3 had .003 less HR@20, 0 had as much
    )
    encoder: EncoderName = "decay"  # one core learns with it; "transformer" is meant for a GPU
    layers: AtLeastOne = 2  # blocks of the transformer; as SASRec
    heads: AtLeastOne = 1  # of its attention; as SASRec, where two were no better
    # the latest so many places of a history count, 0: all of them. An encoder costs what its history costs. Where the
    # blend ranks, at least 9: its parameters differ by the lengths of histories up to that
    history: Annotated[int, Field(ge=0)] = 0
    exact_up_to: AtLeastOne = 200_000  # items that are compared with every history; more need an index: retrieval.py

    @model_validator(mode="after")
    def _heads_divide_the_row(self) -> Self:
        if self.encoder == "transformer" and self.dim % self.heads:
            raise ValueError(f"dim {self.dim} cannot be parted into {self.heads} heads")
        return self

    def places(self, length: int) -> int:
        """How many places of a history of `length` L count."""
        return min(self.history or length, length)


class _Looked:
    def __init__(self, directions: Tensor, unit: Tensor, candidates: NDArray[np.int32], exact: bool) -> None:
        """`exact`: the trainer proposes the same, so the ranker has learned what a place among candidates means."""
        self.candidates, self.reserve = candidates, np.empty(0, np.int32)
        self._directions, self._unit, self._exact = directions, unit, exact

    def kept(self, b: int) -> object:
        return None

    def describe(self, rows: NDArray[np.int32], offsets: Index, out: NDArray[np.float32]) -> None:
        owner = torch.from_numpy(np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))).to(self._unit.device)
        theirs = self._unit.index_select(0, torch.from_numpy(rows.astype(np.int64)).to(self._unit.device))
        out[:, 0] = (self._directions.index_select(0, owner) * theirs).sum(1).cpu().numpy()
        places = np.zeros(len(rows), np.float32)
        if self._exact:
            place_in_list(self.candidates, rows, offsets, places)
        out[:, 1] = places


class Network:
    """A reader's network: it holds the directions of the item rows, not the rows."""

    name = "network"
    renews = False
    width = 1  # the cosine
    personal = True
    feature_names = ("cosine", "rank")
    leading = 0  # by the cosine alone the channel would order items

    def __init__(self, config: NetworkConfig, length: int, device: str, *, indexes: bool = True) -> None:
        """`length` L: items of a history. `indexes`: see retrieval.py."""
        self.config = config
        self.places = config.places(length)
        self.encoder = encoder_of(config.encoder, layers=config.layers, heads=config.heads)
        self.dense = self.encoder.parameters(config.dim, config.hidden, self.places, device)
        self.unit = RowTable("", (config.dim,), torch.float32, device=device)  # the rows' directions
        self.retrieval = Retrieval(self.unit, config.exact_up_to, indexes=indexes)

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
        self.retrieval.resized()

    def forget(self, rows: Index) -> None:
        self.write(rows, torch.zeros(len(rows), self.config.dim, device=self.unit.data.device))

    def write(self, rows: Index, values: Tensor) -> None:
        """Sets rows [n] to values [n, D]."""
        self.unit.data[torch.from_numpy(rows).to(self.unit.data.device)] = normalise(values)[0]
        self.retrieval.written(rows)

    def apply(self, update: Update) -> None:
        if self.dense.are_in(update.tensors):
            self.dense.load(update.tensors)
        if (changed := update.tables.get(ROWS)) is not None:
            self.resize(changed.size)
            values = torch.from_numpy(np.array(changed.values)).to(self.unit.data)
            self.write(np.array(changed.index), values)  # copies: arrays of an update may be read-only

    def look(self, query: Query) -> Look:
        """Proposes the items nearest to the history's direction; none for an empty history."""
        contexts = Contexts.of(query.histories[:, -self.places :])
        directions = self._directions(contexts)
        best = self.retrieval.best(directions, self.config.candidates, query.shut)
        best[contexts.offsets[1:] == contexts.offsets[:-1]] = -1
        return _Looked(directions, self.unit.data, best.astype(np.int32), self.retrieval.exact)

    def describe_more(
        self,
        query: Query,
        kept: Sequence[object],
        rows: NDArray[np.int32],
        offsets: NDArray[np.int64],
        out: NDArray[np.float32],
    ) -> None:
        directions = self._directions(Contexts.of(query.histories[:, -self.places :]))
        none = np.empty((query.n, 0), np.int32)
        _Looked(directions, self.unit.data, none, self.retrieval.exact).describe(rows, offsets, out)

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
        """No table: all of them are learned by gradient. Beside a trainer's network, which has no index, this one has
        none either, so that both propose alike."""
        assert isinstance(other, Network)
        self.retrieval.indexes = other.retrieval.indexes

    def _directions(self, contexts: Contexts) -> Tensor:
        """[B, D] of length 1; 0 for an empty history."""
        contexts = contexts.latest(self.places)
        entries = Entries.of(contexts, contexts.rows, self.unit.data.device)
        return self.encoder.directions(self.dense, self.unit.data, entries)
