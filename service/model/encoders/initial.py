"""Initial matrices, from the seed and a name alone."""

import math

import torch
from torch import Tensor

from service.model.hashing import uniform_rows


def initial_matrix(seed: int, name: str, shape: tuple[int, ...], gain: float) -> Tensor:
    """`shape` [rows, columns], uniform. With a standard deviation of gain / sqrt(rows), what passes through keeps its
    size."""
    rows, columns = shape
    values = uniform_rows(seed, [f"network/{name}/{i}" for i in range(rows)], columns)
    return torch.from_numpy(values * (gain * math.sqrt(3 / rows)))
