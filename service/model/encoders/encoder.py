"""What an encoder is: it makes a direction, in the space of items, of each history.

Its parameters are kept by the network (`Parameters`), so an encoder itself holds nothing that is learned. A new encoder
is one file here and one line in kinds.py. tests/service/model/test_encoders.py holds every encoder to its laws.

Shapes: B histories, E entries in all, R unit rows, D dimensions, H hidden units, L items of a history.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from service.model.encoders.entries import Entries
from service.model.parameters import Parameters


@dataclass(frozen=True)
class RowGradient:
    """The gradient at the unit rows, as M weighted vectors that are still to be summed by row.

    The loss adds terms of its own and sums all of them in one go, in the one order that makes it deterministic.
    """

    rows: Tensor  # [M] the row that the vector belongs to
    source: Tensor  # [M] index into `vectors`
    weight: Tensor  # [M]
    vectors: Tensor  # [V, D]


class Encoded(Protocol):
    """The directions of a batch of histories, with what their gradient needs."""

    @property
    def direction(self) -> Tensor:
        """[B, D] of length 1; 0 for an empty history."""

    def backward(self, gradient: Tensor, into: Parameters) -> RowGradient:
        """From the gradient at `direction` [B, D] to those at the unit rows. Adds those of the parameters to `into`.

        No history may be empty. May be called once.
        """


class Encoder(Protocol):
    @property
    def quick(self) -> frozenset[str]:
        """Names of parameters that are few and needed soon: they learn at the rate of lag weights, without decay."""

    def parameters(self, dim: int, hidden: int, length: int, device: str) -> Parameters:
        """The parameters, all zero, for D, H and L."""

    def initialise(self, dense: Parameters, seed: int) -> None:
        """Sets the initial parameters, from the seed alone."""

    def directions(self, dense: Parameters, unit: Tensor, entries: Entries) -> Tensor:
        """[B, D] as `Encoded.direction`, for readers: without what a gradient needs. `unit` [R, D], of length 1: what
        `entries.rows` index."""

    def encode(self, dense: Parameters, unit: Tensor, entries: Entries) -> Encoded:
        """The directions, for learning."""
