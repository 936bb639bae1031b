"""Dense parameters by name, as views into one vector, so that one optimizer step covers them all."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from model_store.weights import Array, State


class Parameters:
    """All parameters of one part of the model. A version names them `<prefix>/<name>`."""

    def __init__(self, prefix: str, shapes: Mapping[str, tuple[int, ...]], device: str) -> None:
        self.prefix = prefix
        self.shapes = dict(shapes)
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

    def like(self) -> "Parameters":
        """The same names over a vector of zeros: for gradients and rates."""
        return Parameters(self.prefix, self.shapes, str(self.vector.device))

    @property
    def names(self) -> list[str]:
        """The names of the tensors in a version."""
        return [f"{self.prefix}/{name}" for name in self.shapes]

    def tensors(self) -> dict[str, Array]:
        """Copies, by their names in a version."""
        return {f"{self.prefix}/{name}": view.cpu().numpy().copy() for name, view in self.views.items()}

    def are_in(self, tensors: Mapping[str, Array]) -> bool:
        """Whether `tensors` holds all of them."""
        return all(name in tensors for name in self.names)

    def load(self, tensors: Mapping[str, Array]) -> None:
        """Takes all of them over. Raises: ValueError where one has another shape than the configuration says."""
        for name, view in self.views.items():
            given = tensors[f"{self.prefix}/{name}"]
            if given.shape != tuple(view.shape):
                raise ValueError(
                    f"{self.prefix}/{name} is {list(given.shape)}, the configuration says {list(view.shape)}"
                )
            view.copy_(torch.from_numpy(np.array(given)))

    def restore(self, state: State) -> None:
        self.load({name: state.tensor(name) for name in self.names})
