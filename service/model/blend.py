"""The blend ranks items: it adds the channels' scores of item i for history h up to a logit.

    logit(h, i) = scale * s(h, i)                 the score of the personal channel (the network's cosine)
                + sum_k prior_k * c_k(i)          the scores of the channels that are not personal (decayed popularity)
                + repeat[lag of i in h]           where the history holds i

`scale` and `prior` have a value for each bucket of history lengths, `repeat` one for each lag. All are learned by the
sampled softmax of the personal channel (losses.py), and so is how much each channel counts.
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

# Initial weights: of the first score that is not personal (popularity at the shortest half-life), and of the others
# together. What is popular now has to count from the first event, else the first 30,000 ratings lose .01 of NDCG
FIRST_PRIOR, OTHER_PRIORS = 0.8, 0.2


class Blend:
    """The parameters of the blend, with their optimizer."""

    def __init__(self, config: BlendConfig, width: int, length: int, device: str = "cpu") -> None:
        """`width` F: scores of an item by the channels that are not personal. `length` L: items of a history."""
        self.parameters = Parameters(
            "blend",
            {
                "log_scale": (BUCKETS,),
                "prior": (BUCKETS, width),
                "repeat": (length,),  # added for an item in the history, by the lag of its latest occurrence
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
        """As `Traits.learned`."""
        return frozenset(self.parameters.names)

    @property
    def tensors(self) -> dict[str, Array]:
        """What readers load, as copies."""
        return self.parameters.tensors()

    @property
    def trainer_tensors(self) -> dict[str, Array]:
        """The state of the optimizer, as copies."""
        return self.optimizer.tensors("trainer/blend")

    def apply(self, tensors: Mapping[str, Array]) -> None:
        """Takes over the parameters, where `tensors` has them."""
        if self.parameters.are_in(tensors):
            self.parameters.load(tensors)

    def restore(self, state: State) -> None:
        """Puts parameters and optimizer to those of a version."""
        self.parameters.restore(state)
        self.optimizer.restore("trainer/blend", state)

    def learn(self, gradient: Parameters) -> None:
        """One step of the optimizer."""
        self.optimizer.step(self.parameters.vector, gradient.vector)

    def scale(self, bucket: Tensor) -> Tensor:
        """[B, 1] the scale for histories in these buckets [B]."""
        return self.parameters["log_scale"].exp().index_select(0, bucket).unsqueeze(1)


class Repeats:
    """Adds the repeat bonus to the scores of the items that are in the histories of `contexts`."""

    def __init__(self, blend: Blend, contexts: Contexts) -> None:
        repeat = blend.parameters["repeat"]

        def put(a: NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(a)).to(repeat.device)

        # a pair (context, row) appears once among the newest entries, so no two writes meet
        newest = contexts.newest
        self._owner, self._row = put(contexts.owner[newest]), put(contexts.rows[newest])
        self._bonus = repeat.index_select(0, put(contexts.lag[newest]))

    def __call__(self, scores: Tensor, start: int) -> None:
        """`scores` [B, n]: those of the n rows from `start` on."""
        here = (self._row >= start) & (self._row < start + scores.shape[1])
        scores[self._owner[here], self._row[here] - start] += self._bonus[here]
