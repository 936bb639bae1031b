"""The first ranker: it adds up what the channels know of an item, in logits.

    logit(h, i) = scale * s(h, i)                 the channel that knows histories (the network's cosine)
                + sum_k prior_k * c_k(i)          what the channels without histories know (decayed popularity)
                + repeat[lag of i in h]           where the history holds i

`scale` and `prior` depend on how long the history is (a few buckets), `repeat` on how long ago the item was. All are
learned by the sampled softmax of the channel that knows histories (losses.py), so how far to trust memory and how far
generalisation is itself learned.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store.weights import Array, State
from service.model.config import BlendConfig
from service.model.contexts import BUCKETS, Contexts
from service.model.optimizers import AdamW
from service.model.parameters import Parameters

# what is popular now counts from the first event; without, the first 30,000 ratings lose .01 of NDCG
FIRST_PRIOR, OTHER_PRIORS = 0.8, 0.2


class Blend:
    """`width` F: how many numbers the channels without histories know of an item. `length` L: of histories."""

    def __init__(self, config: BlendConfig, width: int, length: int, device: str = "cpu") -> None:
        self.parameters = Parameters(
            "blend",
            {
                "log_scale": (BUCKETS,),
                "prior": (BUCKETS, width),
                "repeat": (length,),  # bonus of an item in the history, by the lag of its latest occurrence
            },
            device,
        )
        self.parameters["log_scale"].fill_(math.log(config.scale))
        if width:
            self.parameters["prior"].fill_(OTHER_PRIORS / max(1, width - 1))
            self.parameters["prior"][:, 0] = FIRST_PRIOR
        vector = self.parameters.vector
        self.optimizer = AdamW.over(vector, torch.full_like(vector, config.rate), torch.zeros_like(vector))

    @property
    def learned(self) -> frozenset[str]:
        return frozenset(self.parameters.names)

    @property
    def tensors(self) -> dict[str, Array]:
        """What readers load, as copies."""
        return self.parameters.tensors()

    @property
    def trainer_tensors(self) -> dict[str, Array]:
        """What the optimizer remembers, as copies."""
        return self.optimizer.tensors("trainer/blend")

    def apply(self, tensors: Mapping[str, Array]) -> None:
        if self.parameters.are_in(tensors):
            self.parameters.load(tensors)

    def restore(self, state: State) -> None:
        """Parameters and optimizer as in a version; also the way back to one."""
        self.parameters.restore(state)
        self.optimizer.restore("trainer/blend", state)

    def learn(self, gradient: Parameters) -> None:
        self.optimizer.step(self.parameters.vector, gradient.vector)

    def scale(self, bucket: Tensor) -> Tensor:
        """[B, 1] of histories in these buckets [B]."""
        return self.parameters["log_scale"].exp().index_select(0, bucket).unsqueeze(1)


class Repeats:
    """The bonus of the items that histories hold."""

    def __init__(self, blend: Blend, contexts: Contexts) -> None:
        repeat = blend.parameters["repeat"]

        def put(a: NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(a)).to(repeat.device)

        # a pair (context, row) appears once among the newest entries, so no two writes meet
        newest = contexts.newest
        self._owner, self._row = put(contexts.owner[newest]), put(contexts.rows[newest])
        self._bonus = repeat.index_select(0, put(contexts.lag[newest]))

    def __call__(self, scores: Tensor, start: int) -> None:
        """Adds it to scores [B, n] of the n items from row `start` on."""
        here = (self._row >= start) & (self._row < start + scores.shape[1])
        scores[self._owner[here], self._row[here] - start] += self._bonus[here]
