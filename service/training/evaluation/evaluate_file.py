"""How well a file of events would have been predicted, in one process and without a broker.

The protocol is prequential (test, then train). Events are taken in the file's order, and the first fifth is only
learned from. Then every event whose user and item are known is ranked against all items known so far, before it is
learned from. The weights lag by one batch of 256 events at most; the user's history is current.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from consumers.batcher import MicroBatcher
from consumers.decode import Decoded
from consumers.file_reading import FileReading
from consumers.micro_batch import MicroBatch
from service.training.evaluation.measures import RankSums
from service.training.learner import Learner, LearnResult

BATCH_EVENTS = 256  # the lag that the protocol allows
WARM_UP = 0.2  # share of the lines that is only learned from


@dataclass(frozen=True)
class Evaluation:
    """The figures of one file."""

    events: int  # accepted: all but duplicates
    duplicates: int
    skipped: int  # batches whose loss or gradient was not finite
    ranked: int
    hit_rate: float  # at 20, as are the two below; 0 where nothing was ranked
    mrr: float
    ndcg: float
    seconds: float  # reading, ranking and learning

    @property
    def events_per_second(self) -> float:
        return self.events / self.seconds if self.seconds else 0.0


def evaluate_file(
    reading: FileReading,
    learner: Learner,
    *,
    replay: int = 1,
    warm_up: float = WARM_UP,
    batch_events: int = BATCH_EVENTS,
    progress: Callable[[int], None] = lambda lines: None,
) -> Evaluation:
    """Reads a file of events once, into a new learner. `progress` is called with the number of lines read so far.

    Raises: FileError where the file cannot be read to its end, or none of its lines is an event.
    """
    learner.evaluate_sample = None  # also in the first fifth: how many events that is shows only at the end
    results: list[tuple[int, LearnResult]] = []  # the lines before each batch, and its result
    lines = 0
    began = time.perf_counter()
    for batch in micro_batches(reading, list(learner.config.history.event_weights), batch_events):
        results.append((lines, learner.learn(batch, replay)))
        lines += len(batch) + sum(batch.rejected.values())
        progress(lines)
    every = [result for _, result in results]
    late = [result for before, result in results if before >= warm_up * lines]
    sums = RankSums()
    for result in late:
        sums.add(result.ranked)
    return Evaluation(
        events=sum(result.n_events for result in every),
        duplicates=sum(result.duplicates for result in every),
        skipped=sum(result.taught.skipped for result in every),
        ranked=int(sums.n),
        hit_rate=sums.hit_rate,
        mrr=sums.mean_mrr,
        ndcg=sums.mean_ndcg,
        seconds=time.perf_counter() - began,
    )


def micro_batches(reading: FileReading, event_types: list[str], batch_events: int) -> Iterator[MicroBatch]:
    """The file as micro-batches. Raises FileError."""
    batcher = MicroBatcher(batch_events, 0.0, event_types, time.monotonic)
    lines = reading.lines()
    while part := list(islice(lines, batch_events)):
        yield from batcher.add(Decoded([line.record for line in part], [line.outcome for line in part]))
    if (last := batcher.flush()) is not None:
        yield last
