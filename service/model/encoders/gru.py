"""The "gru" encoder: a recurrent network reads a history from its oldest item to its latest.

One layer of gated recurrent units (Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", EMNLP
2014), as for sessions in GRU4Rec (Hidasi et al., ICLR 2016):

    r, z = sigmoid(W x + U h)                 reset and update
    n    = tanh(W x + r * (U h))              the reset applied after the product, so that one product gives all of U h
    h'   = n + z * (h - n)

The direction is that of a linear layer over the last state plus the latest item's direction, so that it says something
before anything is learned.

Shapes: B histories, E entries in all, D dimensions, H units of the state, T items of the longest history.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from service.model.encoders.differentiated import Differentiated
from service.model.encoders.directions import normalise
from service.model.encoders.entries import Entries
from service.model.encoders.initial import initial_matrix
from service.model.parameters import Parameters


@dataclass(frozen=True)
class Steps:
    """The entries in the order in which they are read. Histories of most items come first, so that those still in
    progress at a step are the first so many, and no padding is computed."""

    entry: Tensor  # [E] the oldest entries first: step after step, within one by history
    sizes: list[int]  # [T] histories that have an item at each step, ascending
    place: Tensor  # [B] where each history stands in the order by items

    @classmethod
    def of(cls, entries: Entries) -> "Steps":
        offsets, counts = entries.offsets.cpu().numpy(), entries.counts.cpu().numpy()
        order = np.argsort(-counts, kind="stable")
        longest = int(counts.max(initial=0))
        sizes = [int((counts > back).sum()) for back in range(longest - 1, -1, -1)]
        entry = [offsets[order[:n]] + longest - 1 - step for step, n in enumerate(sizes)]
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        device = entries.offsets.device
        read = np.concatenate([np.empty(0, np.int64), *entry])
        return cls(torch.from_numpy(read).to(device), sizes, torch.from_numpy(place).to(device))


class Gru:
    """As an `Encoder`."""

    quick: frozenset[str] = frozenset()

    def parameters(self, dim: int, hidden: int, length: int, device: str) -> Parameters:
        shapes: dict[str, tuple[int, ...]] = {
            "gru_in": (dim, 3 * hidden),  # W of r, z and n
            "gru_in_bias": (3 * hidden,),
            "gru_state": (hidden, 3 * hidden),  # U of r, z and n
            "gru_state_bias": (3 * hidden,),
            "out_weight": (hidden, dim),
            "out_bias": (dim,),
        }
        return Parameters("network", shapes, device)

    def initialise(self, dense: Parameters, seed: int) -> None:
        for name, gain in (("gru_in", 1.0), ("gru_state", 1.0), ("out_weight", 0.1)):
            dense[name].copy_(initial_matrix(seed, name, dense.shapes[name], gain))

    def directions(self, dense: Parameters, unit: Tensor, entries: Entries) -> Tensor:
        steps = Steps.of(entries)
        items = unit.index_select(0, entries.rows.index_select(0, steps.entry))
        return _directions(dense.views, items, steps, entries)

    def encode(self, dense: Parameters, unit: Tensor, entries: Entries) -> Differentiated:
        steps = Steps.of(entries)
        rows = entries.rows.index_select(0, steps.entry)
        return Differentiated.of(dense, unit, rows, lambda p, items: _directions(p, items, steps, entries))


def _directions(p: Mapping[str, Tensor], items: Tensor, steps: Steps, entries: Entries) -> Tensor:
    """[B, D] from the items' directions [E, D] in the order of `steps`."""
    hidden = p["gru_state"].shape[0]
    of_items = torch.addmm(p["gru_in_bias"], items, p["gru_in"])  # [E, 3H]
    state = items.new_zeros(0, hidden)
    latest = items[:0]
    for x, item in zip(torch.split(of_items, steps.sizes), torch.split(items, steps.sizes), strict=True):
        state = torch.cat([state, state.new_zeros(len(x) - len(state), hidden)])  # histories that begin here
        of_state = torch.addmm(p["gru_state_bias"], state, p["gru_state"])
        gates = (x[:, : 2 * hidden] + of_state[:, : 2 * hidden]).sigmoid()
        reset, update = gates.chunk(2, dim=1)
        new = (x[:, 2 * hidden :] + reset * of_state[:, 2 * hidden :]).tanh()
        state, latest = torch.lerp(new, state, update), item
    out = latest + torch.addmm(p["out_bias"], state, p["out_weight"])  # those that are not empty, by items
    out = torch.cat([out, out.new_zeros(entries.n - len(out), out.shape[1])]).index_select(0, steps.place)
    return normalise(out)[0]
