"""Learning from micro-batches, and going on from a version as the trainer that wrote it would have.

A step, one a micro-batch: give rows to new items and users, leave duplicates out, and look up each event's history;
rank a sample of the events; let each channel learn; let each channel count. Everything random is drawn from (seed,
step), and every sum has one order: the same micro-batches give the same bits.

No channel is known by name here: see service/model/channel.py.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from consumers.micro_batch import MicroBatch
from model_store.weights import Array, State, Update
from service.model.channel import Examples, Lesson, Taught
from service.model.config import ModelConfig
from service.model.floor import Floor
from service.model.formats import LATER_TABLES, upgraded_state
from service.model.history import PURCHASE, HistoryRule
from service.model.ranker import joined
from service.model.recommender import Recommender
from service.model.row_table import IdTable, RowTable
from service.model.stream_time import StreamTime
from service.training.effort import FULL, Effort
from service.training.evaluation import prequential
from service.training.evaluation.measures import PairedSums, RankSums
from service.training.evaluation.prequential import Examined
from service.training.evaluation.ranked import Ranked
from service.training.intake import Events, take_events, take_items
from service.training.reference import Reference
from service.training.user_table import UserTable

Index = NDArray[np.int64]

EVALUATE_SAMPLE = 32  # events of a batch that are ranked before they are learned from


@dataclass(frozen=True)
class LearnResult:
    """What became of a micro-batch."""

    n_events: int  # accepted: all but duplicates
    duplicates: int
    taught: Taught
    ranked: RankSums = field(default_factory=RankSums)  # of the sample, before it was learned from
    paired: PairedSums = field(default_factory=PairedSums)  # the sample compared with the reference; empty without one
    lead: tuple[float, float] | None = None  # of lists over the best channel alone: see `Floor.lead`
    each: Ranked = field(default_factory=Ranked, compare=False)  # the events of the sample


class Exceeded(NamedTuple):
    """A limit on rows, and how many are in use."""

    name: str  # of the field of `Limits`
    limit: int
    rows: int


class Learner:
    """The trainer's model, with the tables of items and users. `steps`: micro-batches learned so far."""

    def __init__(
        self, config: ModelConfig, device: str = "cpu", *, evaluate_sample: int | None = EVALUATE_SAMPLE
    ) -> None:
        """`evaluate_sample`: events of a batch that are ranked before learning; None: all. It has no influence on what
        is learned. It may be changed at any time, as may `limits`.

        Raises: UnknownConfig where this build cannot make a model of the configuration.
        """
        self.config, self.limits, self.evaluate_sample = config, config.limits, evaluate_sample
        self.recommender, self.channels = Recommender.to_learn_in(config, device)
        self.items = self.recommender.items
        self.users = UserTable(config.history.length)
        self.steps = 0
        reranking = self.recommender.reranking
        self.floor = Floor(0 if reranking is None else len(reranking.orders), len(self.channels))
        self._stream_time = StreamTime()
        self._rule = HistoryRule.of(config.history)
        types = list(config.history.event_weights)
        self._purchase = types.index(PURCHASE) if PURCHASE in types else -1

    @property
    def clock(self) -> int:
        """Accepted events so far."""
        return self.recommender.clock

    # --- a batch ---

    @torch.no_grad()
    def learn(self, batch: MicroBatch, effort: Effort = FULL, reference: Reference | None = None) -> LearnResult:
        """Learns from a batch.

        `effort` may differ from batch to batch; a batch's record in the manifest holds it. `reference` ranks the same
        sample for comparison, and has no influence on what is learned.
        """
        events = self._take_in(batch)
        examined = self._examine(events, effort, reference)
        examples = Examples(events.item, events.time, events.ts, events.weight, events.history)
        taught = self._teach(examples, events.disliked, effort, examined)
        for channel in self.channels:
            channel.observe(examples, events.disliked)
        self._stream_time.observe(events.happened)
        self.recommender.clock += events.accepted
        self.recommender.now = self._stream_time.now
        self.steps += 1
        self.recommender.changed()
        ranked = examined.ranked
        return LearnResult(
            events.accepted,
            events.duplicates,
            taught,
            RankSums.of(ranked.ahead),
            examined.paired,
            self.floor.lead,
            ranked,
        )

    def beyond_limits(self) -> list[Exceeded]:
        """The limits that are exceeded. It happens where one micro-batch has more items or users than rows
        are allowed: it is learned from nevertheless, and the next batches expire the excess."""
        kept = (
            ("max_items", self.items.in_use, self.limits.max_items),
            ("max_users", self.users.in_use, self.limits.max_users),
        )
        return [Exceeded(name, limit, rows) for name, rows, limit in kept if limit is not None and rows > limit]

    def _take_in(self, batch: MicroBatch) -> Events:
        """Gives rows to new items and users, in the tables and in every channel."""
        items = take_items(self.items, batch, self.clock, self.limits.max_items)
        if len(items.expired):
            self._forget_items(items.expired)
        if len(items.begun):
            self.recommender.resize(self.items.size)
            ids = [self.items.names.ids[row] for row in items.begun.tolist()]
            for channel in self.channels:
                channel.begin(items.begun, ids)
        if batch.catalogue:
            described = self.items.rows_of([change.item_id for change in batch.catalogue])
            for channel in self.channels:
                channel.describe(described, batch.catalogue)
        self.recommender.changed()
        weight = self._rule.weights(batch.type, batch.value)
        return take_events(self.users, batch, items, weight, self.clock, self.limits.max_users, self._purchase)

    def _forget_items(self, expired: Index) -> None:
        """Removes every reference to expired rows, before they are given to other items."""
        for channel in self.channels:
            channel.forget(expired)
        gone = np.zeros(self.items.size, np.bool_)
        gone[expired] = True
        self.users.forget_items(gone)

    def _examine(self, events: Events, effort: Effort, reference: Reference | None) -> Examined:
        """Ranks events before anything is learned from them: those that teach the ranker, and others where more are to
        be measured."""
        config = self.config.ranker
        if config is None:
            most = prequential.how_many(self.evaluate_sample, self.items.size, self.steps)
            return prequential.rank(self.recommender, events, prequential.choose(events, most), reference)
        share = config.share * effort.lessons
        teaching = prequential.choose(events, math.ceil(share * len(events.item)))
        teaches = np.zeros(len(events.item), np.bool_)
        teaches[teaching] = True
        measured = prequential.choose(events, None) if self.evaluate_sample is None else teaching
        return prequential.examine(self.recommender, events, measured, teaches, reference)

    def _teach(self, examples: Examples, disliked: Examples, effort: Effort, examined: Examined) -> Taught:
        lesson = Lesson(
            step=self.steps,
            clock=self.clock,
            seed=self.config.seed,
            replay=effort.replay,
            examples=examples,
            disliked=disliked,
            blend=self.recommender.blend,
            common=self.recommender.common,
            share=effort.network,
        )
        parts = [channel.learn(lesson) for channel in self.channels]
        return together(parts if self.recommender.reranking is None else [self._teach_ranker(examined), *parts])

    def _teach_ranker(self, examined: Examined) -> Taught:
        reranking = self.recommender.reranking
        assert reranking is not None
        self.floor.observe(examined.by_ranker, examined.simple)
        reranking.serves = self.floor.serves
        return reranking.ranker.learn(joined(examined.lessons)) if examined.lessons else Taught()

    # --- versions ---

    @property
    def _tables(self) -> list[RowTable | IdTable]:
        """Every table that is part of a version."""
        return [
            *self.items.tables,
            *(table for channel in self.channels for table in channel.tables),
            *self.users.tables,
        ]

    def _tensors(self) -> dict[str, Array]:
        """Every tensor that is part of a version, as copies."""
        tensors = self.recommender.tensors | {"trainer/steps": np.array([self.steps], np.int64)}
        if self.recommender.reranking is not None:
            tensors |= {"trainer/floor": self.floor.state, "trainer/stream/latest": self._stream_time.state}
        for channel in self.channels:
            tensors.update(channel.tensors)
        return tensors

    def drain(self) -> Update:
        """The rows touched since the last drain, and all tensors; copies, so that learning may go on meanwhile."""
        tables = {table.name: table.drain() for table in self._tables}
        return Update(full=False, tables=tables, tensors=self._tensors())

    def snapshot(self) -> Update:
        """Everything, as copies; the next drain is not changed by it."""
        tables = {table.name: table.snapshot() for table in self._tables}
        return Update(full=True, tables=tables, tensors=self._tensors())

    @classmethod
    def restore(cls, config: ModelConfig, state: State, device: str = "cpu") -> "Learner":
        """A learner that goes on from a version as the learner that wrote it would have, bit for bit. The version may
        be an earlier release's.

        Raises: ValueError where a table's rows are of another shape than `config` says.
        """
        learner = cls(config, device)
        state = upgraded_state(state)
        for table in (*learner.items.tables, *learner.users.tables):
            if table.name in state.tables or table.name not in LATER_TABLES:
                table.load(state.table(table.name))
        for channel in learner.channels:
            channel.restore(state)
        learner.recommender.restore(state)
        learner.items.restored()
        learner.users.restored()
        if learner.recommender.reranking is not None:
            learner.floor.restore(np.asarray(state.tensor("trainer/floor"), np.float64))
            learner._stream_time.restore(np.asarray(state.tensor("trainer/stream/latest"), np.float64))
        learner.steps = int(state.tensor("trainer/steps")[0])
        return learner

    @torch.no_grad()
    def reset_weights(self, state: State) -> None:
        """Puts what is learned by gradient back to a version; histories and counts stay. Items that the version did not
        have begin anew."""
        state = upgraded_state(state)
        for channel in self.channels:
            channel.reset(state, self.items.names.ids)
        self.recommender.restore_weights(state)
        self.recommender.changed()


def together(parts: list[Taught]) -> Taught:
    """What all channels learned from a lesson: the first loss there is, and the sums of the other figures."""
    losses = [part.loss for part in parts if part.loss is not None]
    return Taught(
        loss=losses[0] if losses else None,
        fresh=sum(part.fresh for part in parts),
        replayed=sum(part.replayed for part in parts),
        skipped=any(part.skipped for part in parts),
    )
