"""A file of events as micro-batches, each event with its line; and the catalogue, before the first event."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from consumers.batcher import MicroBatcher
from consumers.decode import Decoded
from consumers.events import Interaction
from consumers.file_reading import FileLine, FileReading
from consumers.micro_batch import MicroBatch
from service.training.effort import Effort
from service.training.learner import Learner

CATALOGUE_BATCH = 1024  # items


@dataclass(frozen=True, slots=True)
class FileBatch:
    """A micro-batch of a file's events."""

    batch: MicroBatch
    line: NDArray[np.int64]  # [n] the number of the event's line, from 1
    has_id: NDArray[np.bool_]  # [n] whether it has an `event_id`

    @property
    def lines(self) -> int:
        """Lines that were read for it, with those that do not fit, without blank ones."""
        return len(self.batch) + sum(self.batch.rejected.values())


class FileEvents:
    """The lines of one file, once, up to an event."""

    def __init__(self, reading: FileReading, limit: int | None = None) -> None:
        """`limit`: events to read; None: all."""
        self.reading, self.limit = reading, limit

    @property
    def share(self) -> float | None:
        """How much of what there is to read has been read, 0 to 1; None where that is not known."""
        of_file = self.reading.file.share_read
        if self.limit is None:
            return of_file
        return max(of_file or 0.0, min(1.0, self.reading.accepted / self.limit))

    def lines(self) -> Iterator[FileLine]:
        """Raises FileError, as the reading does."""
        for line in self.reading.lines():
            yield line
            if self.reading.accepted == self.limit:
                return


def file_batches(lines: Iterable[FileLine], event_types: Sequence[str], batch_events: int) -> Iterator[FileBatch]:
    """Micro-batches of `batch_events` events; the last one has those that are left.

    `event_types` number `MicroBatch.type`. Raises what reading the lines raises.
    """
    batcher = MicroBatcher(batch_events, 0.0, event_types, time.monotonic)
    numbers: list[int] = []
    with_id: list[bool] = []

    def cut(batch: MicroBatch) -> FileBatch:
        n = len(batch)
        cut = FileBatch(batch, np.array(numbers[:n], np.int64), np.array(with_id[:n], np.bool_))
        del numbers[:n], with_id[:n]
        return cut

    lines = iter(lines)
    while part := list(islice(lines, batch_events)):
        events = [line for line in part if isinstance(line.outcome, Interaction)]
        numbers += [line.record.offset for line in events]
        with_id += [line.outcome.event_id is not None for line in events]  # type: ignore[union-attr]
        for batch in batcher.add(Decoded([line.record for line in part], [line.outcome for line in part])):
            yield cut(batch)
    if (last := batcher.flush()) is not None:
        yield cut(last)


def micro_batches(reading: FileReading, event_types: Sequence[str], batch_events: int) -> Iterator[MicroBatch]:
    """The whole file as micro-batches. Raises FileError."""
    return (each.batch for each in file_batches(reading.lines(), event_types, batch_events))


def take_catalogue(reading: FileReading, learner: Learner) -> None:
    """Takes a file of items in, into a learner that has met no event. Raises FileError."""
    for each in file_batches(reading.lines(), [], CATALOGUE_BATCH):
        learner.learn(each.batch, Effort(replay=0))
