"""The "decay" encoder: a history becomes a direction in the space of items.

The direction is that of a weighted sum of the items' directions, with a learned weight for each lag, plus the output of
a small dense network over that sum and the latest item. Gradients are written by hand (tests compare them with
autograd). This makes a step about twice as fast, because each row is gathered once and all sums over rows are one
`embedding_bag` over sorted entries; the one order of the entries also makes the sums deterministic on every device.

Shapes: B histories, E entries in all, D dimensions, H hidden units, L lags.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from service.model.encoders.directions import normalise, normalise_backward
from service.model.encoders.encoder import RowGradient
from service.model.encoders.entries import Entries, bag, by_lag, dots
from service.model.encoders.initial import initial_matrix
from service.model.parameters import Parameters


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
        gain = 1.0 if name == "in_weight" else 0.1  # the sum alone is a good encoder to begin with
        dense[name].copy_(initial_matrix(seed, name, dense.shapes[name], gain))
    dense["lag_weight"].copy_(torch.arange(len(dense["lag_weight"])) * math.log(0.8))


@dataclass(frozen=True)
class Forward:
    """The result of the encoder, with the intermediate results that its gradient needs."""

    weight: Tensor  # [E] the weight of each entry in its sum
    sums: Tensor  # [B, D] weighted sum of the items' directions
    sum_norm: Tensor  # [B, 1]
    joined: Tensor  # [B, 2D] direction of the sum, beside the direction of the latest item
    hidden: Tensor  # [B, H] after the rectifier
    out_norm: Tensor  # [B, 1]
    direction: Tensor  # [B, D] the result, of length 1 (0 for an empty history)


def encode(dense: Parameters, unit_rows: Tensor, entries: Entries) -> Forward:
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
    return Forward(weight, sums, sum_norm, joined, hidden, out_norm, direction * entries.some)


def encode_backward(
    dense: Parameters, unit_rows: Tensor, entries: Entries, encoded: Forward, gradient: Tensor, into: Parameters
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


@dataclass(frozen=True)
class _Encoded:
    dense: Parameters
    unit: Tensor  # [R, D]
    entries: Entries
    forward: Forward

    @property
    def direction(self) -> Tensor:
        return self.forward.direction

    def backward(self, gradient: Tensor, into: Parameters) -> RowGradient:
        entries, weight = self.entries, self.forward.weight
        d_sums, d_latest = encode_backward(self.dense, self.unit, entries, self.forward, gradient, into)
        b = entries.n
        return RowGradient(
            rows=torch.cat([entries.rows, entries.rows.index_select(0, entries.offsets[:-1])]),
            source=torch.cat([entries.owner, torch.arange(b, 2 * b, device=weight.device)]),
            weight=torch.cat([weight, weight.new_ones(b)]),
            vectors=torch.cat([d_sums, d_latest]),
        )


class Decay:
    """As an `Encoder`."""

    quick = frozenset({"lag_weight"})

    def parameters(self, dim: int, hidden: int, length: int, device: str) -> Parameters:
        return decay_parameters(dim, hidden, length, device)

    def initialise(self, dense: Parameters, seed: int) -> None:
        initialise(dense, seed)

    def directions(self, dense: Parameters, unit: Tensor, entries: Entries) -> Tensor:
        return encode(dense, unit, entries).direction

    def encode(self, dense: Parameters, unit: Tensor, entries: Entries) -> _Encoded:
        return _Encoded(dense, unit, entries, encode(dense, unit, entries))
