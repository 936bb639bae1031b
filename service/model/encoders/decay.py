"""The "decay" encoder: a history becomes a direction in the space of items.

The direction is that of a weighted sum of the items' directions, with a learned weight for each lag, plus the output of
a small dense network over that sum and the latest item. Gradients are written by hand (tests compare them with
autograd). This makes a step about twice as fast, because each row is gathered once and all sums over rows are one
`embedding_bag` over sorted entries; the one order of the entries also makes the sums deterministic on every device.

Shapes: B histories, E entries in all, D dimensions, H hidden units, L lags.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from service.model.contexts import BUCKETS, Contexts
from service.model.hashing import uniform_rows
from service.model.parameters import Parameters

EPSILON = 1e-12


def decay_parameters(dim: int, hidden: int, length: int, device: str = "cpu") -> Parameters:
    """The dense parameters, all zero."""
    return Parameters(
        "network",
        {
            "lag_weight": (length,),  # logarithm of the weight of a history item, by lag
            "in_weight": (2 * dim, hidden),
            "in_bias": (hidden,),
            "out_weight": (hidden, dim),
            "out_bias": (dim,),
        },
        device,
    )


def initialise(dense: Parameters, seed: int) -> None:
    """Sets the initial parameters, from the seed alone."""
    for name in ("in_weight", "out_weight"):
        rows, columns = dense[name].shape
        values = uniform_rows(seed, [f"network/{name}/{i}" for i in range(rows)], columns)
        gain = 1.0 if name == "in_weight" else 0.1  # the sum alone is a good encoder to begin with
        dense[name].copy_(torch.from_numpy(values * (gain * math.sqrt(3 / rows))))
    dense["lag_weight"].copy_(torch.arange(len(dense["lag_weight"])) * math.log(0.8))


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
    """The result of the encoder, with the intermediate results that its gradient needs."""

    weight: Tensor  # [E] the weight of each entry in its sum
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
    """The gradient at x [n, D], from that at x / |x|: the part along the direction changes nothing."""
    along: Tensor = torch.linalg.vecdot(gradient, direction).unsqueeze(1)
    return (gradient - direction * along) / norm


def encode(dense: Parameters, unit_rows: Tensor, entries: Entries) -> Encoded:
    """The directions of the histories. `unit_rows` [R, D], of length 1: what `entries.rows` index."""
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
    dense: Parameters, unit_rows: Tensor, entries: Entries, encoded: Encoded, gradient: Tensor, into: Parameters
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

    This is the gradient of `bag` at its weights, so torch's own operator for it is called. It copies neither rows nor
    vectors for each entry: 60,000 entries of 64 dimensions take 1.3 ms, gathering and multiplying takes 5.9.
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
