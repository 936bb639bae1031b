"""How well a file of events would have been predicted, in one process and without a broker.

The protocol is prequential (test, then train). Events are taken in the file's order, and the first fifth is only
learned from. Then every event whose user and item are known is ranked against all items known so far, before it is
learned from. The weights lag by one batch of 256 events at most; the user's history is current.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from consumers.file_reading import FileReading
from service.model.history import HistoryRule
from service.training.effort import FULL, Effort
from service.training.evaluation.file_batches import FileEvents, file_batches, take_catalogue
from service.training.evaluation.quality import Quality
from service.training.evaluation.ranked_events import Ledger, RankedEvents
from service.training.evaluation.slices import SLICES, inside
from service.training.evaluation.stream_counts import StreamCounts
from service.training.learner import Learner

BATCH_EVENTS = 256  # the lag that the protocol allows
WARM_UP = 0.2  # share of the lines that is only learned from

Progress = Callable[[int, float | None], None]
"""Called with the number of lines taken so far, and the share of the file that they are (None: not known)."""


@dataclass(frozen=True)
class Evaluation:
    """The figures of one file, and what they are made of."""

    events: int  # accepted: all but duplicates
    duplicates: int
    skipped: int  # batches whose loss or gradient was not finite
    each: RankedEvents  # after the first fifth
    counts: StreamCounts  # with the names of users and items
    seconds: float  # reading, ranking and learning

    @property
    def quality(self) -> Quality:
        return Quality.of(self.each.ahead)

    @property
    def slices(self) -> dict[str, Quality]:
        """By the names of SLICES."""
        return {each.name: Quality.of(self.each.ahead[inside(self.each.slices, k)]) for k, each in enumerate(SLICES)}

    @property
    def channels(self) -> dict[str, Quality]:
        """Of each channel, had it ranked alone."""
        return {name: Quality.of(ahead) for name, ahead in self.each.alone.items()}

    @property
    def ranked(self) -> int:
        return len(self.each)

    @property
    def hit_rate(self) -> float:
        """At 20, as are the two below; 0 where nothing was ranked."""
        return self.quality.hit_rate.value

    @property
    def mrr(self) -> float:
        return self.quality.mrr.value

    @property
    def ndcg(self) -> float:
        return self.quality.ndcg.value

    @property
    def events_per_second(self) -> float:
        return self.events / self.seconds if self.seconds else 0.0


def evaluate_file(
    reading: FileReading,
    learner: Learner,
    *,
    items: FileReading | None = None,
    limit: int | None = None,
    effort: Effort = FULL,
    warm_up: float = WARM_UP,
    batch_events: int = BATCH_EVENTS,
    progress: Progress = lambda lines, share: None,
) -> Evaluation:
    """Reads a file of events once, into a new learner; `items`, a catalogue, before it.

    `limit`: only so many events from the beginning of the file; None: all. What is counted as earlier events of users
    and items is counted from the first event on.

    Raises: FileError where a file cannot be read to its end, or none of its lines is an event (an item).
    """
    began = time.perf_counter()
    if items is not None:
        take_catalogue(items, learner)
    learner.evaluate_sample = None  # also in the first fifth: how many events that is shows only at the end
    source, history = FileEvents(reading, limit), learner.config.history
    counts, ledger = StreamCounts(HistoryRule.of(history)), Ledger()
    begins: list[tuple[int, int]] = []  # of each batch: the lines and the ranked events before it
    lines = events = duplicates = skipped = 0
    for each in file_batches(source.lines(), list(history.event_weights), batch_events):
        begins.append((lines, ledger.n))
        before = counts.take(each.batch, each.has_id)
        result = learner.learn(each.batch, effort)
        ledger.add(result.each, each.line, before)
        lines += each.lines
        events += result.n_events
        duplicates += result.duplicates
        skipped += result.taught.skipped
        progress(lines, source.share)
    first = next((ranked for taken, ranked in begins if taken >= warm_up * lines), ledger.n)
    return Evaluation(
        events=events,
        duplicates=duplicates,
        skipped=skipped,
        each=ledger.events().since(first),
        counts=counts,
        seconds=time.perf_counter() - began,
    )
