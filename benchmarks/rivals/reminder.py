"""Reminders: what the user has had lately is listed again. Source: Jannach, Ludewig and Lerche, UMUAI 2017."""

from benchmarks.rivals.compiled import compiled
from benchmarks.rivals.rival import Floats, Index


@compiled
def remind(scores: Floats, history: Index, recency: float, reminder: float) -> None:
    """Adds `reminder` * k^-recency of the best score to the k-th latest item of the history, in `scores` [n_items]; to
    an item that was had twice, twice."""
    best = scores.max()
    for k in range(len(history)):
        x = history[len(history) - 1 - k]
        if x < len(scores):
            scores[x] += reminder * best * (k + 1.0) ** -recency
