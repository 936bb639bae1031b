"""The candidates of each history: the union of what the channels propose and of the history itself.

Shapes: B histories, N items, P pairs.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.model.channel import Look
from service.model.kernels.union import unite
from service.model.query import Pairs, Query

Index = NDArray[np.int64]

HISTORY = "history"
"""The origin of candidates that the history itself proposes."""
FILLED = "reserve"
"""The origin of candidates that fill up a short list."""


class Union:
    """Makes the pairs of a query. It keeps one number an item, to see which candidates a history has already."""

    def __init__(self, least: int, latest: int) -> None:
        """`least`: candidates of a history; where channels propose fewer, their reserves fill up. `latest`: items of a
        history that are candidates."""
        self._least, self._latest = least, latest
        self._seen = np.zeros(0, np.int64)  # [N or more] the last call and history that had the item, as one number
        self._call = 0

    def of(
        self, query: Query, looks: Sequence[Look], hide: Index | None = None, *, proposed_alone: bool = False
    ) -> Pairs:
        """`looks`: what each channel sees of the query. `hide` [B, H]: rows not to list for this user, -1 for padding.
        `proposed_alone`: only what the looks propose, no item of the history and nothing to fill up.

        `Pairs.origin` numbers the looks; after them come HISTORY and FILLED."""
        if len(self._seen) < len(query.shut):
            self._seen = np.zeros(2 * len(query.shut), np.int64)
            self._call = 0
        proposed = np.concatenate([look.candidates for look in looks], axis=1)
        origin = np.repeat(np.arange(len(looks)), [look.candidates.shape[1] for look in looks]).astype(np.uint8)
        reserve = np.concatenate([look.reserve for look in looks])
        most = query.n * (proposed.shape[1] + self._least) + len(query.rows)
        rows, origins = np.empty(most, np.int32), np.empty(most, np.uint8)
        offsets = np.zeros(query.n + 1, np.int64)
        hidden = np.empty((query.n, 0), np.int64) if hide is None else hide
        unite(
            proposed, origin, query.rows, query.offsets, reserve, query.shut, hidden,
            0 if proposed_alone else self._least, 0 if proposed_alone else self._latest,
            self._seen, self._call, rows, origins, offsets,
        )  # fmt: skip
        self._call += query.n
        return Pairs(rows[: offsets[-1]].copy(), offsets, origins[: offsets[-1]].copy())
