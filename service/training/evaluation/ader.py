"""The protocol of the table that ADER published (Mi et al., RecSys 2020, section 4): learning period by period.

The events' `context.period` says to which period they belong; what a user does in a period is a session. The first
period is only learned from. Each later one is ranked by the model as it is after the period before, and then learned
from, once. In the period that is ranked, first the items that no earlier period has are removed, then the sessions of
one item. Each further item of a session is a prediction: from the session's items before it, among all items of the
periods before. Recall@20 and MRR@20 are means over the predictions of a period, and then over the periods, of
which each that has predictions counts alike.
"""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray

from consumers.event_file import FileError
from consumers.events import Interaction
from consumers.file_reading import FileLine, FileReading
from service.model.history import HistoryRule
from service.model.recommender import LISTS_AT_ONCE
from service.model.reranking import NOT_LISTED
from service.training.effort import FULL, Effort
from service.training.evaluation.evaluate_file import BATCH_EVENTS, Progress
from service.training.evaluation.file_batches import FileBatch, FileEvents, file_batches
from service.training.evaluation.quality import Mean, Quality
from service.training.evaluation.stream_counts import Before, StreamCounts
from service.training.learner import Learner

Index = NDArray[np.int64]

PERIOD = "period"  # the name in `context`


@dataclass(frozen=True, slots=True)
class Predictions:
    """The m predictions of a period, session by session."""

    line: Index  # [m] of the target in the file
    user: Index  # [m] the number of the user, whose session it is, in `StreamCounts.users`
    item: Index  # [m] the target's number in `StreamCounts.items`
    history: Index  # [m, L] numbers of the session's items before it, the latest last, -1 for padding
    ts: Index  # [m] when the target happened, epoch milliseconds
    previous_ts: Index  # [m] when the item before it happened


@dataclass(frozen=True, slots=True)
class Period:
    """What came of one period."""

    period: int
    predictions: Predictions
    ahead: Index  # [m] how many items came before each target

    @property
    def quality(self) -> Quality:
        return Quality.of(self.ahead)


@dataclass(frozen=True)
class AderEvaluation:
    """The figures of one file."""

    events: int  # accepted: all but duplicates
    duplicates: int
    skipped: int  # batches whose loss or gradient was not finite
    periods: list[Period]  # all but the first
    counts: StreamCounts  # with the names of users and items
    seconds: float  # reading, ranking and learning

    @property
    def ranked(self) -> int:
        return sum(len(each.ahead) for each in self.periods)

    @property
    def recall(self) -> Mean:
        """At 20, as is the next; not in percent."""
        return _mean_of([each.quality.hit_rate for each in self._ranked])

    @property
    def mrr(self) -> Mean:
        return _mean_of([each.quality.mrr for each in self._ranked])

    @property
    def _ranked(self) -> list[Period]:
        return [each for each in self.periods if len(each.ahead)]

    @property
    def events_per_second(self) -> float:
        return self.events / self.seconds if self.seconds else 0.0


def evaluate_by_periods(
    reading: FileReading,
    learner: Learner,
    *,
    limit: int | None = None,
    effort: Effort = FULL,
    batch_events: int = BATCH_EVENTS,
    progress: Progress = lambda lines, share: None,
) -> AderEvaluation:
    """Reads a file of events once, into a new learner. One period is held in memory at a time.

    `limit`: only so many events from the beginning of the file; None: all.

    Raises: FileError where the file cannot be read to its end, none of its lines is an event, an event has no whole
    number as its period or an earlier one than the event before it, or there are fewer than two periods.
    """
    began = time.perf_counter()
    learner.evaluate_sample = 0
    source, history = FileEvents(reading, limit), learner.config.history
    counts = StreamCounts(HistoryRule.of(history))
    periods: list[Period] = []
    share: float | None = 0.0
    lines = events = duplicates = skipped = number = 0
    for number, (period, group) in enumerate(_by_period(source.lines())):
        earlier_items = len(counts.items)
        held = list(file_batches(group, list(history.event_weights), batch_events))
        before = [counts.take(each.batch, each.has_id) for each in held]
        if number:
            asked = predictions_of(held, before, earlier_items, history.length)
            periods.append(Period(period, asked, rank_frozen(learner, asked, counts.items.ids)))
        done, until = share, source.share
        for place, each in enumerate(held, 1):
            result = learner.learn(each.batch, effort)
            lines += each.lines
            events += result.n_events
            duplicates += result.duplicates
            skipped += result.taught.skipped
            share = None if until is None or done is None else done + (until - done) * place / len(held)
            progress(lines, share)
    if not periods:
        raise FileError(f"{reading.file.name} has one period; the first one is only learned from, and none is ranked")
    return AderEvaluation(events, duplicates, skipped, periods, counts, time.perf_counter() - began)


def predictions_of(held: list[FileBatch], before: list[Before], earlier_items: int, length: int) -> Predictions:
    """What is to be predicted of a period. `earlier_items`: the items with lower numbers are those of earlier periods.
    `length` L: items of a history, at most."""
    accepted, weight, user, item = (
        np.concatenate([getattr(each, name) for each in before]) for name in ("accepted", "weight", "user", "item")
    )
    line = np.concatenate([each.line for each in held])
    ts = np.concatenate([each.batch.ts for each in held])
    kept = np.flatnonzero(accepted & (weight > 0) & (item >= 0) & (item < earlier_items))
    kept = kept[np.argsort(user[kept], kind="stable")]  # session by session
    line, ts, user, item = line[kept], ts[kept], user[kept], item[kept]
    begin = np.searchsorted(user, user)  # [kept] where the session of each begins
    target = np.flatnonzero(begin < np.arange(len(kept)))  # not its first one: so none in a session of one item
    place = target[:, None] + np.arange(-length, 0)  # [m, L]
    history = np.where(place >= begin[target][:, None], item[np.maximum(place, 0)] if len(item) else place, -1)
    return Predictions(line[target], user[target], item[target], history, ts[target], ts[target - 1])


@torch.no_grad()
def rank_frozen(learner: Learner, asked: Predictions, ids: list[str]) -> Index:
    """[m] how many items come before each target, by the model as it is; NOT_LISTED where it has no such item.

    `ids`: the items' ids by their numbers.
    """
    recommender = learner.recommender
    rows = np.append(recommender.rows_of(ids), -1)  # -1 indexes the last entry
    target = rows[asked.item]
    ahead = np.full(len(target), NOT_LISTED, np.int64)
    known = np.flatnonzero(target >= 0)  # all, unless the model forgets items
    now = asked.ts / 1000.0
    idle = np.maximum((asked.ts - asked.previous_ts) / 1000.0, 0.0).astype(np.float32)
    for start in range(0, len(known), LISTS_AT_ONCE):
        part = known[start : start + LISTS_AT_ONCE]
        ahead[part] = recommender.ranks(rows[asked.history[part]], target[part], now=now[part], idle=idle[part])
    return ahead


def _by_period(lines: Iterable[FileLine]) -> Iterator[tuple[int, Iterator[FileLine]]]:
    """The events of each period. Raises FileError."""
    latest: int | None = None

    def period_of(line: FileLine) -> int:
        nonlocal latest
        context = line.outcome.context if isinstance(line.outcome, Interaction) else None
        found = (context or {}).get(PERIOD)
        if not isinstance(found, int) or isinstance(found, bool):
            raise FileError(f"line {line.record.offset}: context.period is not a whole number; the protocol needs it")
        if latest is not None and found < latest:
            raise FileError(f"line {line.record.offset}: period {found} after period {latest}")
        latest = found
        return found

    return groupby((line for line in lines if isinstance(line.outcome, Interaction)), key=period_of)


def _mean_of(means: list[Mean]) -> Mean:
    """The mean of independent means, each of which counts alike; 0 without any."""
    n = len(means)
    error = math.sqrt(sum(each.standard_error**2 for each in means)) / n if n else math.nan
    return Mean(sum(each.value for each in means) / n if n else 0.0, error)
