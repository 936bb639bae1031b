"""Directions: rows divided by their length, and the gradient of that."""

import torch
from torch import Tensor

EPSILON = 1e-12


def normalise(x: Tensor) -> tuple[Tensor, Tensor]:
    """Directions [n, D] and lengths [n, 1]."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(
        EPSILON
    )  # not in place: autograd needs it
    return x / norm, norm


def normalise_backward(gradient: Tensor, direction: Tensor, norm: Tensor) -> Tensor:
    """The gradient at x [n, D], from that at x / |x|: the part along the direction changes nothing."""
    along: Tensor = torch.linalg.vecdot(gradient, direction).unsqueeze(1)
    return (gradient - direction * along) / norm
