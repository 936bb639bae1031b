"""What a source of recommendations must offer to be united with the others.

A channel's state is rows keyed by item and a few small tensors, so that it travels to the readers as touched rows. The
network and popularity are the channels there are. Room is kept for others (neighbours from decayed counts, text): one
more class in a file of its own, one more entry in `Recommender.channels`. A re-ranker goes between `Recommender.scores`
and the choice of the k best.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model_store.weights import Array, Update
from service.model.contexts import Contexts
from service.model.row_table import RowTable


class Channel(Protocol):
    @property
    def tables(self) -> Sequence[RowTable]:
        """Rows keyed by item; those not under `trainer/` travel to readers."""

    @property
    def tensors(self) -> Mapping[str, Array]:
        """Small tensors, as copies."""

    def apply(self, update: Update) -> None:
        """Takes over what an update holds of this channel. Costs what the update's rows cost."""

    def resize(self, size: int) -> None:
        """Makes room for items; their rows are empty until they are learned."""

    def forget(self, rows: NDArray[np.int64]) -> None:
        """Empties rows whose items were expired."""

    def add_common(self, clock: int, scores: Tensor, start: int = 0) -> None:
        """Adds what holds for all users whose history is of one length, in logits, to `scores` [BUCKETS, n] of the n
        items from row `start` on; there may be room behind the last item.

        Worked out once a change of the model, not once a user.
        """

    def asked_by(self, contexts: Contexts) -> "AddScores | None":
        """What adds that which depends on the histories; None where nothing does."""


AddScores = Callable[[Tensor, int], None]
"""Adds logits to scores [B, n] of the n items from a row on."""
