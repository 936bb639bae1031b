"""The network: a history becomes a direction in the space of items, and an item's score is the cosine to it.

    logit(h, i) = scale * cos(encode(h), row_i)                 the network
                + sum_k prior_k * log(count_k(i) + floor)       decayed popularity at K half-lives, see popularity.py
                + repeat[lag of i in h]                         where the history holds i

`scale` and `prior` depend on how long the history is (a few buckets), `repeat` on how long ago the item was. All are
learned by the same sampled softmax, so how far to trust memory and how far generalisation is itself learned.

`encode` is the "decay" encoder: a weighted sum of the items' directions, weights learned per lag, and a small dense
layer beside it that also sees the latest item alone. The gradients are written by hand (tests compare them with
autograd): that makes a step about twice as fast, because each row is gathered once and all sums over rows are one
`embedding_bag` over sorted entries, which is also what makes them deterministic on every device.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from model_store.weights import Array, Update
from service.model.channel import AddScores
from service.model.contexts import BUCKETS, Contexts
from service.model.row_table import RowTable

EPSILON = 1e-12


@dataclass(frozen=True)
class Shape:
    dim: int  # D
    history: int  # L
    hidden: int  # H
    half_lives: int  # K


class Dense:
    """Every dense parameter, as views into one vector, so that one optimizer step and one blob cover them all."""

    def __init__(self, shape: Shape, device: str = "cpu") -> None:
        d, h = shape.dim, shape.hidden
        self.shapes: dict[str, tuple[int, ...]] = {
            "lag_weight": (shape.history,),  # logarithm of the weight of a history item, by lag
            "in_weight": (2 * d, h),
            "in_bias": (h,),
            "out_weight": (h, d),
            "out_bias": (d,),
            "log_scale": (BUCKETS,),
            "prior": (BUCKETS, shape.half_lives),
            "repeat": (shape.history,),  # bonus of an item in the history, by the lag of its latest occurrence
        }
        self.vector = torch.zeros(sum(math.prod(s) for s in self.shapes.values()), device=device)
        self.views = dict(self._views(self.vector))

    def _views(self, vector: Tensor) -> Iterator[tuple[str, Tensor]]:
        start = 0
        for name, shape in self.shapes.items():
            n = math.prod(shape)
            yield name, vector[start : start + n].view(shape)
            start += n

    def __getitem__(self, name: str) -> Tensor:
        return self.views[name]

    def like(self) -> "Dense":
        """The same names over a vector of zeros: for gradients and rates."""
        other = object.__new__(Dense)
        other.shapes = self.shapes
        other.vector = torch.zeros_like(self.vector)
        other.views = dict(other._views(other.vector))
        return other

    def tensors(self) -> dict[str, Array]:
        return {f"network/{name}": view.detach().cpu().numpy().copy() for name, view in self.views.items()}

    def load(self, tensors: Mapping[str, Array]) -> None:
        for name, view in self.views.items():
            view.copy_(torch.from_numpy(np.array(tensors[f"network/{name}"])))

    @staticmethod
    def shape_of(tensors: Mapping[str, Array]) -> Shape:
        d2, h = tensors["network/in_weight"].shape
        k = tensors["network/prior"].shape[1]
        return Shape(dim=d2 // 2, history=tensors["network/lag_weight"].shape[0], hidden=h, half_lives=k)


@dataclass(frozen=True)
class Entries:
    """The index arrays of `Contexts`, on the device."""

    rows: Tensor  # [E] index into whatever matrix of unit rows is at hand
    lag: Tensor  # [E]
    owner: Tensor  # [E]
    offsets: Tensor  # [B + 1]
    bucket: Tensor  # [B]
    first: Tensor  # [B] the entry of the latest item; 0 where there is none
    some: Tensor  # [B, 1] 1.0 where the history is not empty

    @classmethod
    def of(cls, contexts: Contexts, rows: NDArray[np.int64], device: torch.device) -> "Entries":
        def put(a: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(a)).to(device)

        full = contexts.offsets[1:] > contexts.offsets[:-1]
        return cls(
            rows=put(rows),
            lag=put(contexts.lag),
            owner=put(contexts.owner),
            offsets=put(contexts.offsets),
            bucket=put(contexts.bucket),
            first=put(np.where(full, contexts.offsets[:-1], 0)),
            some=put(full.astype(np.float32)[:, None]),
        )


@dataclass(frozen=True)
class Encoded:
    """What the way back needs of the way forward."""

    weight: Tensor  # [E] of each entry in its sum
    sums: Tensor  # [B, D] weighted sum of the items' directions
    sum_norm: Tensor  # [B, 1]
    joined: Tensor  # [B, 2D] direction of the sum, beside the direction of the latest item
    hidden: Tensor  # [B, H] after the rectifier
    out_norm: Tensor  # [B, 1]
    direction: Tensor  # [B, D] the result, of length 1 (0 for an empty history)


def normalise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Directions [n, D] and lengths [n, 1]."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min_(EPSILON)
    return x / norm, norm


def normalise_backward(gradient: Tensor, direction: Tensor, norm: Tensor) -> Tensor:
    """The gradient at x, from that at x / |x|: what is along the direction changes nothing."""
    along: Tensor = torch.linalg.vecdot(gradient, direction).unsqueeze(1)
    return (gradient - direction * along) / norm


def encode(dense: Dense, unit_rows: Tensor, entries: Entries) -> Encoded:
    """`unit_rows` [R, D] of length 1, which `entries.rows` index."""
    weight = dense["lag_weight"].exp()[entries.lag]  # [E]
    sums = bag(unit_rows, entries.rows, entries.offsets, weight)  # [B, D]
    mean, sum_norm = normalise(sums)
    if len(entries.rows):
        latest = unit_rows.index_select(0, entries.rows.index_select(0, entries.first)) * entries.some  # [B, D]
    else:
        latest = torch.zeros_like(sums)
    joined = torch.cat([mean, latest], dim=1)  # [B, 2D]
    hidden = torch.addmm(dense["in_bias"], joined, dense["in_weight"]).relu_()  # [B, H]
    out = torch.addmm(dense["out_bias"], hidden, dense["out_weight"]).add_(mean)  # [B, D]
    direction, out_norm = normalise(out)
    return Encoded(weight, sums, sum_norm, joined, hidden, out_norm, direction * entries.some)


def encode_backward(
    dense: Dense, unit_rows: Tensor, entries: Entries, encoded: Encoded, gradient: Tensor, into: Dense
) -> tuple[Tensor, Tensor]:
    """From the gradient at the direction [B, D] to those at the sum and at the latest item's direction, each [B, D].

    Adds the gradients of the dense parameters to `into`. Histories must not be empty.
    """
    d = gradient.shape[1]
    d_out = normalise_backward(gradient, encoded.direction, encoded.out_norm)  # [B, D]
    into["out_weight"].addmm_(encoded.hidden.T, d_out)
    into["out_bias"].add_(d_out.sum(0))
    d_hidden = (d_out @ dense["out_weight"].T).mul_(encoded.hidden > 0)  # [B, H]
    into["in_weight"].addmm_(encoded.joined.T, d_hidden)
    into["in_bias"].add_(d_hidden.sum(0))
    d_joined = d_hidden @ dense["in_weight"].T  # [B, 2D]
    d_mean = d_out + d_joined[:, :d]
    d_sums = normalise_backward(d_mean, encoded.joined[:, :d], encoded.sum_norm)
    # a lag's weight: how much its entries agree with the gradient at their sum
    agreement = dots(d_sums, unit_rows, entries)  # [E]
    into["lag_weight"].add_(by_lag(agreement * encoded.weight, entries, len(d_out), len(into["lag_weight"])))
    return d_sums, d_joined[:, d:]


def bag(table: Tensor, index: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    """[B, D]: weighted sums of table rows; bag b takes the entries offsets[b] to offsets[b + 1]."""
    sums: Tensor = embedding_bag(index, table, offsets, mode="sum", per_sample_weights=weight, include_last_offset=True)
    return sums


def dots(vectors: Tensor, table: Tensor, entries: Entries) -> Tensor:
    """[E]: the product of each entry's table row with its context's vector, of [B, D].

    It is the gradient of `bag` at its weights. Called by its name, since it writes neither rows nor vectors out once
    an entry: 60,000 entries of 64 take 1.3 ms, gathered and multiplied 5.9.
    """
    products: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        vectors, table, entries.rows, entries.offsets, entries.owner, 0
    )
    return products


def by_lag(value: Tensor, entries: Entries, n: int, length: int) -> Tensor:
    """[L]: the sum over entries of each lag. Through a dense [B, L], since sums by index are not deterministic."""
    dense = value.new_zeros(n * length)
    dense[entries.owner * length + entries.lag] = value
    return dense.view(n, length).sum(0)


def by_bucket(value: Tensor, bucket: Tensor) -> Tensor:
    """[BUCKETS, C]: the sum over contexts of each bucket, of value [B, C]."""
    member = (bucket.unsqueeze(0) == torch.arange(BUCKETS, device=bucket.device).unsqueeze(1)).to(value.dtype)
    return member @ value


class Network:
    """The channel: item rows and the dense vector. The trainer's holds the rows; a reader's only their directions."""

    def __init__(self, shape: Shape, device: str = "cpu", *, keep_rows: bool) -> None:
        self.shape = shape
        self.dense = Dense(shape, device)
        self.rows = RowTable("item/row", (shape.dim,), torch.float32, device=device) if keep_rows else None
        self.unit = RowTable("", (shape.dim,), torch.float32, device=device)  # the rows' directions

    @property
    def tables(self) -> list[RowTable]:
        return [self.rows] if self.rows is not None else []

    @property
    def tensors(self) -> dict[str, Array]:
        return self.dense.tensors()

    def resize(self, size: int) -> None:
        for table in (*self.tables, self.unit):
            table.resize(size)

    def forget(self, rows: NDArray[np.int64]) -> None:
        self.write(rows, torch.zeros(len(rows), self.shape.dim, device=self.unit.data.device))

    def write(self, rows: NDArray[np.int64], values: Tensor) -> None:
        """Sets rows [n, D] and their directions."""
        index = torch.from_numpy(rows).to(self.unit.data.device)
        if self.rows is not None:
            self.rows.data[index] = values
            self.rows.touch(rows)
        self.unit.data[index] = normalise(values)[0]

    def refresh(self) -> None:
        """Works out every direction anew, after the rows were loaded."""
        if self.rows is not None:
            self.unit.resize(self.rows.size)
            self.unit.data[: self.rows.size] = normalise(self.rows.data[: self.rows.size])[0]

    def apply(self, update: Update) -> None:
        if "network/prior" in update.tensors:
            self.dense.load(update.tensors)
        if (changed := update.tables.get("item/row")) is not None:
            self.resize(changed.size)
            values = torch.from_numpy(np.array(changed.values)).to(self.unit.data)
            self.write(np.array(changed.index), values)  # a copy: what is read may be read-only

    def add_common(self, clock: int, scores: Tensor, start: int = 0) -> None:
        """Without a history the network says nothing."""

    def asked_by(self, contexts: Contexts) -> AddScores:
        entries = Entries.of(contexts, contexts.rows, self.unit.data.device)
        encoded = encode(self.dense, self.unit.data, entries)
        query = encoded.direction * self.dense["log_scale"].exp().index_select(0, entries.bucket).unsqueeze(1)
        # a pair (context, row) appears once among the newest entries, so no two writes meet
        newest = torch.from_numpy(contexts.newest).to(query.device)
        owner, row, lag = entries.owner[newest], entries.rows[newest], entries.lag[newest]
        bonus = self.dense["repeat"].index_select(0, lag)

        def add(scores: Tensor, start: int) -> None:
            stop = start + scores.shape[1]
            scores.addmm_(query, self.unit.data[start:stop].T)
            here = (row >= start) & (row < stop)
            scores[owner[here], row[here] - start] += bonus[here]

        return add
