"""The features of a pair (history, candidate) that the ranker weighs: each has a name, and all names have a digest.

Each channel describes a pair by columns of its own, the history by others, and a few are products of two columns, where
one says when the other counts. A model's weights belong to one list of names in one order. So versions carry a digest
of it, and a reader whose features are others refuses the version instead of ranking by the wrong numbers.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.model.channel import Channel, Look
from service.model.kernels import history
from service.model.query import Pairs, Query

PRODUCTS = (
    ("history.idle", "neighbours.share"),  # who comes back after long wants less of the same
    ("history.not_held", "popularity.since_last"),
)
"""Pairs of columns whose product is a feature too, where both are there."""


class FeatureSet:
    """The features of a model with these channels, in this order."""

    def __init__(self, channels: Sequence[Channel], without: Sequence[str] = ()) -> None:
        """`without`: features whose names begin so are 0."""
        self._channels = channels
        self._widths = [len(channel.feature_names) for channel in channels]
        names = [f"{channel.name}.{name}" for channel in channels for name in channel.feature_names]
        names += [f"history.{name}" for name in history.FEATURES]
        self._described = len(names)
        columns = {name: n for n, name in enumerate(names)} | {"history.not_held": names.index("history.held")}
        self._products = [
            (columns[left], columns[right], left == "history.not_held")
            for left, right in PRODUCTS
            if left in columns and right in columns
        ]
        names += [f"{left} x {right}" for left, right in PRODUCTS if left in columns and right in columns]
        self.names = tuple(names)
        self._zero = [n for n, name in enumerate(names) if any(name.startswith(each) for each in without)]

    @property
    def width(self) -> int:
        """F: how many features a pair has."""
        return len(self.names)

    @property
    def digest(self) -> NDArray[np.uint8]:
        """[32] SHA-256 of the names in their order."""
        return np.frombuffer(hashlib.sha256("\n".join(self.names).encode()).digest(), np.uint8).copy()

    def column(self, name: str) -> int:
        """The column of a feature. Raises: KeyError."""
        if name not in self.names:
            raise KeyError(name)
        return self.names.index(name)

    def renew(self, query: Query, looks: Mapping[str, Look], pairs: Pairs, x: NDArray[np.float32]) -> None:
        """Brings features [P, F] that were made for the same histories earlier to the time of the query. `looks`: of
        the channels that renew theirs; those of the others stay."""
        for channel, of_channel in self._columns(x):
            if channel.name in looks:
                looks[channel.name].describe(pairs.rows, pairs.offsets, of_channel)
        history.passing(query.idle, pairs.offsets, x[:, sum(self._widths) : self._described])
        self._finish(x)

    def of_more(self, query: Query, kept: Sequence[tuple[object, ...]], pairs: Pairs, x: NDArray[np.float32]) -> None:
        """Writes the features [P, F] of pairs that are new among those of histories looked at before, but for what
        `renew` writes. `kept` [B]: what each channel kept of its look. `x` holds the features of another candidate of
        the same history."""
        for n, (channel, of_channel) in enumerate(self._columns(x)):
            if not channel.renews:
                channel.describe_more(query, [each[n] for each in kept], pairs.rows, pairs.offsets, of_channel)
        of_history = x[:, sum(self._widths) : self._described]
        history.features(query.rows, query.offsets, query.idle, pairs.rows, pairs.offsets, of_history)

    def _columns(self, x: NDArray[np.float32]) -> Iterator[tuple[Channel, NDArray[np.float32]]]:
        """Each channel with its columns of x [P, F]."""
        begin = 0
        for channel, width in zip(self._channels, self._widths, strict=True):
            yield channel, x[:, begin : begin + width]
            begin += width

    def of(self, query: Query, looks: Sequence[Look], pairs: Pairs) -> NDArray[np.float32]:
        """[P, F] float32, finite. `looks`: what each channel sees of the query."""
        x = np.empty((len(pairs.rows), self.width), np.float32)
        for look, (_, of_channel) in zip(looks, self._columns(x), strict=True):
            look.describe(pairs.rows, pairs.offsets, of_channel)
        of_history = x[:, sum(self._widths) : self._described]
        history.features(query.rows, query.offsets, query.idle, pairs.rows, pairs.offsets, of_history)
        self._finish(x)
        return x

    def _finish(self, x: NDArray[np.float32]) -> None:
        """The features that are products of others, and those that are switched off."""
        for n, (left, right, without) in enumerate(self._products):
            factor = 1 - x[:, left] if without else x[:, left]
            np.multiply(factor, x[:, right], out=x[:, self._described + n])
        if self._zero:
            x[:, self._zero] = 0
