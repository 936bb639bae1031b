"""A rival's best settings, found on the first fifth of a stream and nowhere else."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.quality.protocol import WARM_UP, Run, run
from benchmarks.quality.stream import Stream
from benchmarks.rivals.rival import Entry, Settings


@dataclass(frozen=True)
class Found:
    """The best settings, and how many were tried."""

    settings: Settings
    trials: int


def search(stream: Stream, entry: Entry, progress: Callable[[Settings, Run], None] = lambda _, __: None) -> Found:
    """Runs the protocol inside the first fifth of the stream, which is the part that the real run only learns from.

    One setting at a time, in the grid's order: the value with the best NDCG@20 stays, the earlier one if equal. That
    is a few trials where the whole grid would be hundreds.
    """
    fifth = stream.first(int(WARM_UP * len(stream)))
    best: Settings = {name: values[0] for name, values in entry.grid.items()}
    best_ndcg, trials = _ndcg(fifth, entry, best, progress), 1
    for name, values in entry.grid.items():
        for value in values[1:]:
            tried = best | {name: value}
            trials += 1
            if (ndcg := _ndcg(fifth, entry, tried, progress)) > best_ndcg:
                best, best_ndcg = tried, ndcg
    return Found(best, trials)


def run_with(stream: Stream, entry: Entry, settings: Settings, most: int | None) -> Run:
    """A new rival with these settings, through the stream."""
    its_own = {name: value for name, value in settings.items() if name != "hide_seen"}
    rival = entry.make(stream.sizes, **its_own)
    return run(stream, rival, hide_seen=bool(settings.get("hide_seen")), most=most)


def _ndcg(stream: Stream, entry: Entry, settings: Settings, progress: Callable[[Settings, Run], None]) -> float:
    found = run_with(stream, entry, settings, entry.search_lists)
    progress(settings, found)
    return found.figures.ndcg.mean
