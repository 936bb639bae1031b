"""The optimizers: row-wise Adagrad for item rows, AdamW for dense parameters."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model_store.weights import Array, State


def adagrad_rows(rows: Tensor, gradient: Tensor, accumulated: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """New rows [n, D] and accumulators [n], from rows [n, D], their gradients [n, D] and accumulators [n].

    An accumulator is the sum of the mean squares of its row's gradients (Duchi et al. 2011; one number a row as in
    DLRM, Naumov et al. 2019). Adam on rows was measured to be worse, and triples what is published.
    """
    accumulated = accumulated + gradient.square().mean(1)
    return rows - gradient * (rate / (accumulated.sqrt() + 1e-8)).unsqueeze(1), accumulated


@dataclass
class AdamW:
    """AdamW (Loshchilov & Hutter 2019) over one vector [P], with a rate and a decay for each element."""

    rate: Tensor  # [P]
    decay: Tensor  # [P]
    first: Tensor  # [P]
    second: Tensor  # [P]
    steps: int = 0
    beta1: float = 0.9
    beta2: float = 0.99  # rather than .999: the stream moves, and there are only thousands of steps

    @classmethod
    def over(cls, vector: Tensor, rate: Tensor, decay: Tensor) -> "AdamW":
        """An optimizer that has made no step yet."""
        return cls(rate, decay, torch.zeros_like(vector), torch.zeros_like(vector))

    def step(self, vector: Tensor, gradient: Tensor) -> None:
        """Changes `vector` [P] in place."""
        self.steps += 1
        self.first.lerp_(gradient, 1 - self.beta1)
        self.second.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        mean = self.first / (1 - self.beta1**self.steps)
        root = (self.second / (1 - self.beta2**self.steps)).sqrt_().add_(1e-8)
        vector.mul_(1 - self.rate * self.decay).sub_(self.rate * mean / root)

    def tensors(self, prefix: str) -> dict[str, Array]:
        """Its state, as copies: `<prefix>/first` [P], `<prefix>/second` [P] and `<prefix>/steps` [1]."""
        return {
            f"{prefix}/first": self.first.cpu().numpy().copy(),
            f"{prefix}/second": self.second.cpu().numpy().copy(),
            f"{prefix}/steps": np.array([self.steps], np.int64),
        }

    def restore(self, prefix: str, state: State) -> None:
        self.first.copy_(torch.from_numpy(np.array(state.tensor(f"{prefix}/first"))))
        self.second.copy_(torch.from_numpy(np.array(state.tensor(f"{prefix}/second"))))
        self.steps = int(np.asarray(state.tensor(f"{prefix}/steps"))[0])
