"""What lists are asked for: histories, and the time of asking."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.model.contexts import Contexts
from service.model.kernels.flat import flatten

Index = NDArray[np.int64]

NOT_KNOWN = -1.0
"""The idle time of a user whose last event has no known time."""


@dataclass(frozen=True, slots=True)
class Query:
    """B histories, asked at one moment of the event clock. Times are those of the stream, not of the machine: old
    streams are replayed."""

    histories: NDArray[np.signedinteger]  # [B, L] item rows, most recent last, -1 for padding
    rows: NDArray[np.int32]  # [E] the items of the histories, one history after the other, the latest item first
    offsets: Index  # [B + 1] the items of history b: offsets[b] to offsets[b + 1]
    clock: int  # accepted events so far
    now: NDArray[np.float64]  # [B] epoch seconds
    idle: NDArray[np.float32]  # [B] seconds since the user's latest event; NOT_KNOWN where that is not known
    shut: NDArray[np.bool_]  # [N] rows that must not be listed for anybody

    @property
    def n(self) -> int:
        """B: how many histories."""
        return len(self.histories)

    @property
    def contexts(self) -> Contexts:
        """The histories in the form that encoders take."""
        return Contexts.of(self.histories)

    @classmethod
    def of(
        cls,
        histories: NDArray[np.signedinteger],
        *,
        clock: int,
        shut: NDArray[np.bool_],
        now: NDArray[np.float64],
        idle: NDArray[np.float32],
    ) -> "Query":
        rows, offsets = np.empty(histories.size, np.int32), np.zeros(len(histories) + 1, np.int64)
        flatten(histories, rows, offsets)
        return cls(histories, rows[: offsets[-1]], offsets, clock, now, idle, shut)


@dataclass(frozen=True, slots=True)
class Pairs:
    """P pairs (history, candidate), history after history; each candidate of a history once."""

    rows: NDArray[np.int32]  # [P] the candidate's row
    offsets: Index  # [B + 1] the candidates of history b: offsets[b] to offsets[b + 1]
    origin: NDArray[np.uint8]  # [P] which proposal it is of: an index into the list of proposals, the first that had it

    def at(self, b: int) -> slice:
        """The pairs of history b."""
        return slice(int(self.offsets[b]), int(self.offsets[b + 1]))


def padded(rows: Sequence[NDArray[np.signedinteger]]) -> Index:
    """[B, longest] rows of B arrays, with -1 after each."""
    lengths = np.array([len(each) for each in rows])
    found = np.full((len(rows), int(lengths.max(initial=0))), -1, np.int64)
    if len(rows):
        found[np.arange(found.shape[1]) < lengths[:, None]] = np.concatenate(rows)
    return found
