"""Tiny streams."""

import numpy as np

from benchmarks.quality.stream import Stream
from benchmarks.rivals.rival import Events


def events_of(pairs: list[tuple[int, int]]) -> Events:
    """(user, item) rows, a second apart, without values."""
    user, item = np.array(pairs, np.int64).reshape(-1, 2).T
    return Events(user, item, 1_000 * np.arange(len(pairs)), np.full(len(pairs), np.nan))


def stream_of(pairs: list[tuple[int, int]]) -> Stream:
    return Stream("tiny", events_of(pairs))


def random_stream(n: int, seed: int = 0, users: int = 20, items: int = 30) -> Stream:
    """Rows numbered as they first appear."""
    rng = np.random.default_rng(seed)
    rows: tuple[dict[int, int], dict[int, int]] = ({}, {})
    drawn = zip(rng.integers(users, size=n).tolist(), rng.integers(items, size=n).tolist(), strict=True)
    return stream_of([(rows[0].setdefault(u, len(rows[0])), rows[1].setdefault(i, len(rows[1]))) for u, i in drawn])
