"""Learning from micro-batches, and going on from a version as whoever wrote it would have.

A step: rows for new items and users, duplicates out, histories as they stood before each event; rank a sample of the
events before learning from them; draw negatives and replayed contexts; one gradient step; count. Everything random is
drawn from (seed, step), and every sum has one order: the same batches give the same bits.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from consumers.micro_batch import MicroBatch
from model_store.weights import Array, State, Update
from service.model.contexts import Contexts
from service.model.history import HistoryRule
from service.model.negatives import NegativeSampler
from service.model.network import Shape
from service.model.recommender import Recommender
from service.model.row_table import IdTable, RowTable
from service.training import prequential
from service.training.evaluation import PairedSums, RankSums
from service.training.intake import Events, take_events, take_items
from service.training.learner_config import LearnerConfig
from service.training.reference import Reference
from service.training.replay import Replay
from service.training.user_table import UserTable
from service.training.weights import Step, Weights

Index = NDArray[np.int64]


@dataclass(frozen=True)
class LearnResult:
    loss: float | None  # mean over contexts; None where there was nothing to learn from, or the batch was skipped
    n_events: int  # accepted, that is not duplicates
    duplicates: int
    learned: int  # fresh contexts with a gradient
    replayed: int
    skipped: bool  # loss or gradient not finite: weights untouched, histories and counters advanced
    grad_norm: float
    touched_rows: int
    ranked: int = 0  # the three sums are over so many events
    recall_at_20: float = 0.0
    ndcg_at_20: float = 0.0
    mrr_at_20: float = 0.0
    paired: PairedSums = field(default_factory=PairedSums)  # against the reference, where there is one


class Learner:
    def __init__(self, config: LearnerConfig) -> None:
        self.config = config
        shape = Shape(config.dim, config.history, config.hidden, len(config.half_lives))
        self.recommender = Recommender.fresh(shape, config.half_lives, config.device)
        self.items = self.recommender.items
        self.network = self.recommender.network
        self.popularity = self.recommender.popularity
        self.weights = Weights(self.network, self.popularity, config)
        self.users = UserTable(config.history)
        event_weights = dict(zip(config.event_types, config.event_weights, strict=False))
        self._rule = HistoryRule(config.history, event_weights, config.rating_scale)
        self.replay = Replay(config.replay_capacity, config.history)
        self.negatives = NegativeSampler(config.negatives)
        self.evaluate_sample = config.evaluate_sample  # may be changed at any time: it has no part in learning
        self.steps = 0

    @property
    def clock(self) -> int:
        return self.recommender.clock

    # --- a batch ---

    @torch.no_grad()
    def learn(self, batch: MicroBatch, replay: int = 1, reference: Reference | None = None) -> LearnResult:
        """Learns from a batch, and from `replay` past targets for each fresh one.

        `replay` may differ from batch to batch; whoever wants to rebuild a version must know what it was. `reference`
        ranks the same events for comparison, and has no part in learning.
        """
        events = self._take_in(batch)
        ranked, paired = self._rank(events, reference)
        rng = np.random.Generator(np.random.Philox(key=[self.config.seed & (2**64 - 1), self.steps]))
        self._draw_negatives(rng)
        step = self._step(events, replay, rng)
        outcome = self.weights.descend(step, self.negatives.take(self.steps))
        self._count(events)
        return LearnResult(
            loss=outcome.loss,
            n_events=events.accepted,
            duplicates=events.duplicates,
            learned=step.fresh,
            replayed=step.contexts.n - step.fresh,
            skipped=outcome.skipped,
            grad_norm=outcome.grad_norm,
            touched_rows=outcome.touched,
            ranked=ranked.n,
            recall_at_20=ranked.hits,
            ndcg_at_20=ranked.ndcg,
            mrr_at_20=ranked.mrr,
            paired=paired,
        )

    def beyond_limits(self) -> list[str]:
        """Which limits are exceeded, in words: by a micro-batch that alone has more items or users than there may be
        rows. It is learned from like any other, and the rows are given to those who need them next."""
        config = self.config
        kept = (
            ("TIDEMILL_MAX_ITEMS", self.items.in_use, config.max_items),
            ("TIDEMILL_MAX_USERS", self.users.in_use, config.max_users),
        )
        return [
            f"{name} is {limit}, and {rows} rows are in use: a micro-batch holds more than that"
            for name, rows, limit in kept
            if limit is not None and rows > limit
        ]

    def _take_in(self, batch: MicroBatch) -> Events:
        """Gives rows to whatever is new, everywhere."""
        config = self.config
        items = take_items(self.items, batch, self.clock, config.max_items)
        if len(items.expired):
            self._forget_items(items.expired)
        if len(items.begun):
            self.recommender.resize(self.items.size)
            self.weights.begin(items.begun, [self.items.names.ids[row] for row in items.begun.tolist()])
        weight = self._rule.weights(batch.type, batch.value)
        return take_events(self.users, batch, items, weight, self.clock, config.max_users)

    def _forget_items(self, expired: Index) -> None:
        """Takes rows out of everything that refers to them, before they mean other items."""
        for channel in self.recommender.channels:
            channel.forget(expired)
        self.weights.forget(expired)
        gone = np.zeros(self.items.size, np.bool_)
        gone[expired] = True
        for keeper in (self.users, self.replay, self.negatives):
            keeper.forget_items(gone)

    def _rank(self, events: Events, reference: Reference | None) -> tuple[RankSums, PairedSums]:
        """Ranks a sample of the events, before anything is learned from them."""
        most = prequential.how_many(self.evaluate_sample, self.items.size, self.steps)
        return prequential.rank(self.recommender, events, prequential.choose(events, most), reference)

    def _draw_negatives(self, rng: np.random.Generator) -> None:
        if self.negatives.due(self.steps):
            counts = self.popularity.log_counts(self.clock)[:, -1].exp().cpu().numpy()
            self.negatives.refill(counts, rng)

    def _step(self, events: Events, replay: int, rng: np.random.Generator) -> Step:
        """The contexts to learn from: the fresh ones that have a history, then replayed ones. Keeps the fresh ones.

        Fresh ones whose target has been met before come first, because they alone teach scale, prior and repeat: the
        count of none of an item nobody has met would teach that popularity says little.
        """
        config = self.config
        full = (events.history >= 0).any(1)
        history, target = events.history[full], events.item[full]
        weight = events.weight[full].astype(np.float32)
        old_history, old_target, old_weight = self.replay.draw(
            replay * len(target),
            rng,
            recent=config.replay_recent,
            recent_share=config.replay_recent_share,
            dropout=config.dropout,
        )
        self.replay.add(history, target, weight)
        counts = self.popularity.table.data[torch.from_numpy(target).to(config.device), 0]
        met = torch.isfinite(counts).cpu().numpy()  # -inf: no event before this batch
        order = np.argsort(~met, kind="stable")
        return Step(
            clock=self.clock,
            contexts=Contexts.of(np.concatenate([history[order], old_history])),
            target=np.concatenate([target[order], old_target]),
            weight=np.concatenate([weight[order], old_weight]),
            fresh=len(target),
            judging=int(met.sum()),
        )

    def _count(self, events: Events) -> None:
        """What advances whatever became of the gradient."""
        self.popularity.observe(events.item, events.time, events.weight)
        self.recommender.clock += events.accepted
        self.steps += 1
        self.recommender.changed()

    # --- what travels ---

    @property
    def _tables(self) -> list[RowTable | IdTable]:
        """Every table that is part of a version."""
        return [*self._row_tables, *self._id_tables]

    @property
    def _row_tables(self) -> list[RowTable]:
        return [
            self.items.listable,
            self.items.last_used,
            self.items.unlisted.since,
            self.weights.adagrad,
            *(table for channel in self.recommender.channels for table in channel.tables),
            *self.users.tables,
            *self.replay.tables,
            *self.negatives.tables,
        ]

    @property
    def _id_tables(self) -> list[IdTable]:
        return [self.items.names, self.items.unlisted.names, self.users.names]

    def _tensors(self) -> dict[str, Array]:
        """Copies."""
        counters = [self.steps, self.replay.written, self.weights.optimizer.steps]
        tensors: dict[str, Array] = {
            "clock": np.array([self.clock], np.int64),
            "trainer/counters": np.array(counters, np.int64),
            **self.weights.tensors,
        }
        for channel in self.recommender.channels:
            tensors.update(channel.tensors)
        return tensors

    def drain(self) -> Update:
        """The rows touched since the last drain, and the tensors; copies, so that learning may go on meanwhile."""
        tables = {table.name: table.drain() for table in self._tables}
        return Update(full=False, tables=tables, tensors=self._tensors())

    def snapshot(self) -> Update:
        """Everything; what a drain has to give is not changed by it."""
        tables = {table.name: table.snapshot() for table in self._tables}
        return Update(full=True, tables=tables, tensors=self._tensors())

    @classmethod
    def restore(cls, config: LearnerConfig, state: State) -> "Learner":
        """A learner that goes on from a version as the one that wrote it would have, bit for bit.

        Raises: ValueError where a table's rows are of another shape than `config` says.
        """
        learner = cls(config)
        unlisted = learner.items.unlisted  # earlier releases did not keep them
        later = {unlisted.names.name, unlisted.since.name} - state.tables.keys()
        for ids in learner._id_tables:
            if ids.name not in later:
                ids.load([str(i) for i in state.table(ids.name)])
        for rows in learner._row_tables:
            if rows.name not in later:
                rows.load(np.asarray(state.table(rows.name)))
        learner.network.refresh()
        learner.recommender.resize(learner.items.size)
        learner.items.restored()
        learner.users.restored()
        learner.weights.load_dense(state)
        learner.recommender.clock = int(state.tensor("clock")[0])
        learner.steps, learner.replay.written, _ = np.asarray(state.tensor("trainer/counters")).tolist()
        return learner

    @torch.no_grad()
    def reset_weights(self, state: State) -> None:
        """Puts item rows, network and optimizer back to a version; histories, counts and popularity stay.

        Items that came after that version begin anew.
        """
        self.weights.reset(state, self.items.names.ids)
        self.recommender.changed()
