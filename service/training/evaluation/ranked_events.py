"""What came of every ranked event of a stream, as columns."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.training.evaluation.ranked import Ranked
from service.training.evaluation.slices import slices_of
from service.training.evaluation.stream_counts import Before

Index = NDArray[np.int64]

FAR = (1 << 31) - 1
"""How many items come before one that is not listed, in the columns of `RankedEvents`."""


@dataclass(frozen=True)
class RankedEvents:
    """n ranked events in the order of the stream, in about 25 bytes each."""

    line: Index  # [n] its number in the file
    user: NDArray[np.int32]  # [n] its number in `StreamCounts.users`
    item: NDArray[np.int32]  # [n]
    ahead: NDArray[np.int32]  # [n] items listed before the target; FAR where it is not listed
    slices: NDArray[np.uint16]  # [n] as `slices_of` gives them
    origin: NDArray[np.uint8]  # [n] index into `origins`
    origins: tuple[str, ...]  # channels that proposed targets; "" for none
    alone: Mapping[str, NDArray[np.int32]]  # channel -> [n] `ahead`, had it ranked alone

    def __len__(self) -> int:
        return len(self.line)

    def since(self, first: int) -> "RankedEvents":
        """Without the events before the `first`."""
        return RankedEvents(
            self.line[first:],
            self.user[first:],
            self.item[first:],
            self.ahead[first:],
            self.slices[first:],
            self.origin[first:],
            self.origins,
            {name: ahead[first:] for name, ahead in self.alone.items()},
        )


@dataclass
class Ledger:
    """Ranked events, added batch by batch."""

    n: int = 0
    _columns: list[tuple[NDArray[np.generic], ...]] = field(default_factory=list)
    _alone: dict[str, list[NDArray[np.int32]]] = field(default_factory=dict)
    _origins: dict[str, int] = field(default_factory=lambda: {"": 0})

    def add(self, ranked: Ranked, line: Index, before: Before) -> None:
        """`line` [events of the batch]: their lines in the file."""
        m = len(ranked.place)
        for name in self._alone.keys() | ranked.alone.keys():  # a channel may be there for some batches only
            parts = self._alone.setdefault(name, [np.full(self.n, FAR, np.int32)])
            parts.append(_bounded(ranked.alone[name]) if name in ranked.alone else np.full(m, FAR, np.int32))
        for name in sorted(set(ranked.origin)):
            self._origins.setdefault(name, len(self._origins))
        codes = list(map(self._origins.__getitem__, ranked.origin)) or [0] * m
        self._columns.append(
            (
                line[ranked.place],
                before.user[ranked.place].astype(np.int32),
                before.item[ranked.place].astype(np.int32),
                _bounded(ranked.ahead),
                slices_of(before, ranked.place),
                np.array(codes, np.uint8),
            )
        )
        self.n += m

    def events(self) -> RankedEvents:
        types = (np.int64, np.int32, np.int32, np.int32, np.uint16, np.uint8)
        columns = zip(*self._columns, strict=True) if self._columns else [[np.empty(0, kind)] for kind in types]
        line, user, item, ahead, slices, origin = (np.concatenate(parts) for parts in columns)
        alone = {name: np.concatenate(self._alone[name]) for name in sorted(self._alone)}
        return RankedEvents(line, user, item, ahead, slices, origin, tuple(self._origins), alone)


def _bounded(ahead: Index) -> NDArray[np.int32]:
    return np.minimum(ahead, FAR).astype(np.int32)
