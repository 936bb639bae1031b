"""The "transformer" encoder: self-attention over a history, asked by its latest item. Meant for a GPU: on one core a
step takes several times that of "decay".

As SASRec (Kang & McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018): learned positions, counted back from
the latest item; blocks of causal attention and a feed-forward layer; no item sees a later one. Unlike it, norms stand
before each layer (Xiong et al. 2020), which needs no warm-up of the rate, dropout is that of replayed histories
alone, and in the last block only the latest item asks, since only its output is used.

Shapes: B histories, E entries in all, D dimensions, H hidden units, T items of the longest history, N heads. Item t of
a history is the one t places before the latest.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from service.model.encoders.differentiated import Differentiated
from service.model.encoders.directions import normalise
from service.model.encoders.entries import Entries
from service.model.encoders.initial import initial_matrix
from service.model.parameters import Parameters


@dataclass(frozen=True)
class Transformer:
    """As an `Encoder`. `heads` divides D."""

    layers: int
    heads: int

    @property
    def quick(self) -> frozenset[str]:
        return frozenset()

    def parameters(self, dim: int, hidden: int, length: int, device: str) -> Parameters:
        shapes: dict[str, tuple[int, ...]] = {"position": (length, dim)}
        for n in range(self.layers):
            shapes |= {
                f"attention_norm_{n}": (2, dim),  # gain less 1, and shift
                f"query_{n}": (dim, dim),
                f"key_value_{n}": (dim, 2 * dim),
                f"mix_{n}": (dim, dim),
                f"forward_norm_{n}": (2, dim),
                f"in_weight_{n}": (dim, hidden),
                f"in_bias_{n}": (hidden,),
                f"out_weight_{n}": (hidden, dim),
                f"out_bias_{n}": (dim,),
            }
        return Parameters("network", shapes, device)

    def initialise(self, dense: Parameters, seed: int) -> None:
        for name, shape in dense.shapes.items():
            if len(shape) == 2 and "norm" not in name:
                # what blocks add is small to begin with: then the latest item alone is the direction
                gain = 0.1 if name.startswith(("mix", "out_weight")) else 1.0
                dense[name].copy_(initial_matrix(seed, name, shape, gain))
        dense["position"].mul_(0.1)

    def directions(self, dense: Parameters, unit: Tensor, entries: Entries) -> Tensor:
        return self._directions(dense.views, unit.index_select(0, entries.rows), entries)

    def encode(self, dense: Parameters, unit: Tensor, entries: Entries) -> Differentiated:
        return Differentiated.of(dense, unit, entries.rows, lambda p, items: self._directions(p, items, entries))

    def _directions(self, p: Mapping[str, Tensor], items: Tensor, entries: Entries) -> Tensor:
        """[B, D] from the items' directions [E, D]."""
        b, d, counts = entries.n, items.shape[1], entries.counts
        t = max(1, int(counts.max())) if b else 1
        place = torch.arange(t, device=items.device)
        at = torch.arange(len(items), device=items.device) - entries.offsets.index_select(0, entries.owner)  # [E]
        # an entry has a place of its own, so no two writes meet; sqrt(D) makes elements about 1 large
        x = items.new_zeros(b * t, d).index_copy(0, entries.owner * t + at, items * math.sqrt(d)).view(b, t, d)
        x = x + p["position"][:t]
        # [B, T, T] keys that are later, or padding; padding sees itself, since a softmax over nothing is not a number
        there = place < counts.unsqueeze(1)  # [B, T]
        later = place.unsqueeze(0) < place.unsqueeze(1)  # [T, T] key t' < t is later than t
        itself = torch.eye(t, dtype=torch.bool, device=items.device)
        hidden_keys = later | ~(there.unsqueeze(1) | itself)
        for n in range(self.layers):
            asked = 1 if n == self.layers - 1 else t
            x = self._block(p, n, x, asked, hidden_keys[:, :asked])
        return normalise(x[:, 0])[0] * entries.some

    def _block(self, p: Mapping[str, Tensor], n: int, x: Tensor, asked: int, hidden_keys: Tensor) -> Tensor:
        """[B, Q, D] from x [B, T, D]: the outputs of the latest Q = `asked` items. `hidden_keys` [B, Q, T]."""
        b, t, d = x.shape
        heads, width = self.heads, d // self.heads
        normed = _norm(x, p[f"attention_norm_{n}"])
        query = (normed[:, :asked] @ p[f"query_{n}"]).view(b, asked, heads, width).transpose(1, 2)  # [B, N, Q, D / N]
        key, value = (normed @ p[f"key_value_{n}"]).view(b, t, 2, heads, width).permute(2, 0, 3, 1, 4).unbind(0)
        agreement = query @ key.transpose(2, 3) / math.sqrt(width)  # [B, N, Q, T]
        attention = agreement.masked_fill(hidden_keys.unsqueeze(1), -math.inf).softmax(-1)
        seen = (attention @ value).transpose(1, 2).reshape(b, asked, d)
        x = x[:, :asked] + seen @ p[f"mix_{n}"]
        inner = (_norm(x, p[f"forward_norm_{n}"]) @ p[f"in_weight_{n}"] + p[f"in_bias_{n}"]).relu()
        return x + inner @ p[f"out_weight_{n}"] + p[f"out_bias_{n}"]


def _norm(x: Tensor, of: Tensor) -> Tensor:
    """Layer norm (Ba et al. 2016) over the last dimension, with gain and shift of [2, D]."""
    return layer_norm(x, x.shape[-1:], 1 + of[0], of[1])
