"""`tidemill evaluate FILE`: how well a stream would have been predicted, in one process and without a broker.

The protocol (prequential: test, then train): events in the file's order; the first fifth only learned from; then every
event whose user has been seen and whose item is known is ranked against all items known so far, before it is learned
from. The weights lag by at most one batch of 256 events, the user's own history is current.
"""

import gzip
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

from consumers.batcher import MicroBatcher
from consumers.decode import DecodeRules, decode
from consumers.events import DEFAULT_EVENT_WEIGHTS
from consumers.micro_batch import MicroBatch
from consumers.records import Record
from service.model.config import ModelConfig
from service.model.registry import NEW_MODEL
from service.training.evaluation.measures import RankSums
from service.training.learner import Learner

BATCH_EVENTS = 256  # the lag that the protocol allows
WARM_UP = 0.2


@dataclass(frozen=True)
class Evaluation:
    events: int  # accepted
    rejected: int
    skipped: int  # batches without a finite gradient
    ranked: int
    hit_rate: float  # at 20, as the two below; 0 where nothing was ranked
    mrr: float
    ndcg: float
    seconds: float  # reading, ranking and learning

    @property
    def events_per_second(self) -> float:
        return self.events / self.seconds if self.seconds else 0.0


@dataclass
class Reading:
    """Decodes a file into micro-batches, and counts what did not fit."""

    rejected: int = 0
    weights: dict[str, float] = field(default_factory=lambda: dict(DEFAULT_EVENT_WEIGHTS))

    def batches(self, path: Path, batch_events: int) -> Iterator[MicroBatch]:
        rules = DecodeRules(event_types=self.weights)
        batcher = MicroBatcher(batch_events, 0.0, list(self.weights), time.monotonic)
        now_ms = int(time.time() * 1000)
        with open_lines(path) as lines:
            numbered = enumerate(lines)
            while part := list(islice(numbered, batch_events)):
                decoded = decode(
                    [Record("events", 0, n, -1, None, line.rstrip(b"\r\n")) for n, line in part if line.strip()],
                    rules,
                    now_ms,
                )
                self.rejected += len(decoded.rejects)
                yield from batcher.add(decoded)
        if (last := batcher.flush()) is not None:
            yield last


def open_lines(path: Path) -> BinaryIO:
    """The file's lines as bytes, unpacked where its name ends in .gz."""
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def evaluate_file(
    path: Path | str,
    config: ModelConfig | None = None,
    *,
    replay: int = 1,
    warm_up: float = WARM_UP,
    batch_events: int = BATCH_EVENTS,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Replays a `.jsonl` or `.jsonl.gz` of events. `progress` is told (events done, events in all) after each batch.

    `config.history.event_weights` must be for the contract's event types, in their order, as the default is.
    Raises OSError where the file cannot be read.
    """
    path = Path(path)
    config = NEW_MODEL if config is None else config
    with open_lines(path) as lines:
        total = sum(1 for line in lines if line.strip())
    learner = Learner(config)
    reading = Reading()
    sums = RankSums()
    skipped = done = 0
    began = time.perf_counter()
    for batch in reading.batches(path, batch_events):
        learner.evaluate_sample = None if done + reading.rejected >= warm_up * total else 0
        result = learner.learn(batch, replay)
        sums.add(result.ranked)
        skipped += result.taught.skipped
        done += len(batch)
        if progress is not None:
            progress(done, total)
    return Evaluation(
        events=done,
        rejected=reading.rejected,
        skipped=skipped,
        ranked=int(sums.n),
        hit_rate=sums.hit_rate,
        mrr=sums.mean_mrr,
        ndcg=sums.mean_ndcg,
        seconds=time.perf_counter() - began,
    )
