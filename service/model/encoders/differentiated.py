"""Encoders whose gradient is made by autograd: they say how directions are computed, and no more.

Entries are gathered before the graph begins, so autograd gives one vector an entry, and the sum by row is the loss's.
Autograd's own order is that of the graph, so on one thread the same batches give the same bits.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from service.model.encoders.encoder import RowGradient
from service.model.parameters import Parameters

Directions = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""From parameters by name and the items' directions [E, D] to the histories' directions [B, D]."""


@dataclass(frozen=True)
class Differentiated:
    """Directions with the graph that made them."""

    direction: Tensor  # [B, D] outside the graph
    _traced: Tensor  # [B, D] the same, the graph's result
    _leaves: Mapping[str, Tensor]  # the parameters
    _items: Tensor  # [E, D]
    _rows: Tensor  # [E] whose rows the items are

    @classmethod
    def of(cls, dense: Parameters, unit: Tensor, rows: Tensor, compute: Directions) -> "Differentiated":
        """Computes the directions of histories whose entries are the rows [E] of `unit` [R, D]."""
        leaves = {name: view.detach().requires_grad_() for name, view in dense.views.items()}
        items = unit.detach().index_select(0, rows).requires_grad_()
        with torch.enable_grad():  # learning as a whole is without
            traced = compute(leaves, items)
        return cls(traced.detach(), traced, leaves, items, rows)

    def backward(self, gradient: Tensor, into: Parameters) -> RowGradient:
        found = torch.autograd.grad(self._traced, [self._items, *self._leaves.values()], gradient)
        for name, of_parameter in zip(self._leaves, found[1:], strict=True):
            into[name].add_(of_parameter)
        each = torch.arange(len(self._rows), device=self._rows.device)
        return RowGradient(self._rows, each, found[0].new_ones(len(self._rows)), found[0])
