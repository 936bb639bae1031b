"""How the network learns: item rows by Adagrad, dense layers by AdamW, from fresh and replayed contexts.

Everything random comes from the lesson's generator, and every sum has one order: the same lessons give the same bits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consumers.micro_batch import ItemChange
from model_store.weights import Array, State
from service.model.channel import Examples, Lesson, Taught
from service.model.channels.network import ROWS, Network, NetworkConfig
from service.model.channels.popularity import Popularity
from service.model.contexts import Contexts
from service.model.encoders.directions import normalise
from service.model.exemplars import Exemplars
from service.model.hashing import uniform_rows
from service.model.losses import Sample, sampled_softmax
from service.model.negatives import NegativeSampler
from service.model.optimizers import AdamW, adagrad_rows
from service.model.parameters import Parameters
from service.model.row_table import RowTable

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Step:
    """What one gradient is made of: fresh contexts, then replayed ones, then those whose target was disliked."""

    contexts: Contexts  # B of them, none empty
    target: Index  # [B]
    weight: NDArray[np.float32]  # [B] below 0: disliked
    fresh: int  # the first so many contexts are fresh
    replayed: int  # the next so many are replayed
    teaching: int  # the first so many contexts teach the blend; at most `fresh`


class LearningNetwork(Network):
    """The trainer's network: it keeps the rows themselves, the state of the optimizers, exemplars and negatives."""

    def __init__(self, config: NetworkConfig, length: int, popularity: Popularity, seed: int, device: str) -> None:
        """`popularity`: negatives are drawn by its counts, and targets that it has not counted do not teach the
        blend."""
        super().__init__(config, length, device, indexes=False)
        self._popularity, self._seed = popularity, seed
        self.rows = RowTable(ROWS, (config.dim,), torch.float32, device=device)
        self.adagrad = RowTable("trainer/item/adagrad", (), torch.float32, device=device)
        self.encoder.initialise(self.dense, seed)
        self.optimizer = adamw(self.dense, config, self.encoder.quick)
        self.negatives = NegativeSampler(config.negatives)
        self.exemplars = Exemplars(config.replay_capacity, self.places)

    @property
    def tables(self) -> list[RowTable]:
        return [self.rows, self.adagrad, *self.exemplars.tables, *self.negatives.tables]

    @property
    def tensors(self) -> dict[str, Array]:
        return {
            **self.dense.tensors(),
            **self.optimizer.tensors("trainer/network"),
            "trainer/replay/written": np.array([self.exemplars.written], np.int64),
        }

    # -- items come and go ---------------------------------------------------------------------------------------------

    def resize(self, size: int) -> None:
        super().resize(size)
        self.rows.resize(size)
        self.adagrad.resize(size)

    def begin(self, rows: Index, ids: Sequence[str]) -> None:
        self.write(rows, first_rows(self._seed, ids, self.config.dim).to(self.rows.data.device))

    def describe(self, rows: Index, changes: Sequence[ItemChange]) -> None:
        """Nothing: the network learns from events alone."""

    def forget(self, rows: Index) -> None:
        super().forget(rows)
        self.adagrad.put(rows, 0.0)
        gone = np.zeros(self.rows.size, np.bool_)
        gone[rows] = True
        self.exemplars.forget_items(gone)
        self.negatives.forget_items(gone)

    def write(self, rows: Index, values: Tensor) -> None:
        self.rows.put(rows, values)
        super().write(rows, values)

    # -- learning ------------------------------------------------------------------------------------------------------

    def learn(self, lesson: Lesson) -> Taught:
        random = lesson.random()
        if self.negatives.due(lesson.step):
            counts = self._popularity.log_counts(lesson.clock)[:, -1].exp().cpu().numpy()
            self.negatives.refill(counts, random)
        step = self._step(lesson, random)
        return self.descend(step, self.negatives.take(lesson.step), lesson)

    def observe(self, examples: Examples, disliked: Examples) -> None:
        """Nothing: the network counts nothing."""

    def _step(self, lesson: Lesson, random: np.random.Generator) -> Step:
        """The contexts to learn from: those that have a history, of the lesson's share of events. Adds the fresh ones
        to the exemplars.

        Fresh contexts whose target has been met before come first, and they alone teach the blend: a target that nobody
        had met has a count of 0, which would teach that popularity says little.
        """
        config = self.config
        history, target, weight = self._with_history(_some(lesson.examples, lesson.share, random))
        old_history, old_target, old_weight = self.exemplars.draw(
            lesson.replay * len(target),
            random,
            recent=config.replay_recent,
            recent_share=config.replay_recent_share,
            dropout=config.dropout,
        )
        self.exemplars.add(history, target, weight)
        disliked = _some(lesson.disliked, lesson.share, random) if config.dislikes else Examples.none(self.places)
        bad_history, bad_target, bad_weight = self._with_history(disliked)
        met = self._popularity.has_met(target)
        order = np.argsort(~met, kind="stable")
        return Step(
            contexts=Contexts.of(np.concatenate([history[order], old_history, bad_history])),
            target=np.concatenate([target[order], old_target, bad_target]),
            weight=np.concatenate([weight[order], old_weight, bad_weight * np.float32(config.dislikes)]),
            fresh=len(target),
            replayed=len(old_target),
            teaching=int(met.sum()),
        )

    def descend(self, step: Step, sample: Sample, lesson: Lesson) -> Taught:
        """One gradient step, if it is finite, on the rows, the dense layers and the blend."""
        if not step.contexts.n:
            return Taught()
        assert lesson.blend is not None, "where the network learns there is a blend"
        taught = Taught(fresh=step.fresh, replayed=step.replayed)
        size, device = self.rows.size, self.rows.data.device
        unique = unique_rows(size, step.contexts.rows, step.target, sample.rows)
        local = np.empty(size, np.int64)
        local[unique] = np.arange(len(unique))
        index = torch.from_numpy(unique).to(device)
        rows = self.rows.data.index_select(0, index)  # [U, D]
        unit, norm = normalise(rows)
        gradients = sampled_softmax(
            self.dense,
            lesson.blend,
            unit,
            norm,
            lesson.common(index),
            replace(step.contexts, rows=local[step.contexts.rows]),
            local[step.target],
            step.weight,
            Sample(local[sample.rows], sample.log_expected),
            step.teaching,
            self.encoder,
        )
        squared = sum(float(g.square().sum()) for g in (gradients.rows, gradients.dense.vector, gradients.blend.vector))
        if not (math.isfinite(gradients.loss) and math.isfinite(squared)):
            return replace(taught, skipped=True)
        rows, accumulated = adagrad_rows(
            rows, gradients.rows, self.adagrad.data.index_select(0, index), self.config.row_rate
        )
        self.write(unique, rows)
        self.adagrad.put(unique, accumulated)
        self.optimizer.step(self.dense.vector, gradients.dense.vector)
        lesson.blend.learn(gradients.blend)
        loss = gradients.loss / float(np.abs(step.weight).sum())
        return replace(taught, loss=loss)

    def _with_history(self, examples: Examples) -> tuple[NDArray[np.int32], Index, NDArray[np.float32]]:
        """History [n, `places`], item and weight of the examples whose history is not empty."""
        history = examples.history[:, -self.places :]
        full = (history >= 0).any(1)
        return history[full], examples.item[full], examples.weight[full].astype(np.float32)

    # -- versions ------------------------------------------------------------------------------------------------------

    def restore(self, state: State) -> None:
        for table in self.tables:
            table.load(state.table(table.name))
        self.unit.resize(self.rows.size)
        self.unit.data[: self.rows.size] = normalise(self.rows.data[: self.rows.size])[0]
        self.exemplars.written = int(np.asarray(state.tensor("trainer/replay/written"))[0])
        self._restore_dense(state)

    def reset(self, state: State, ids: Sequence[str]) -> None:
        then = state.table("item/id")
        used = [row for row, item in enumerate(ids) if item]
        self.begin(np.array(used, np.int64), [ids[row] for row in used])
        self.adagrad.put(np.arange(self.adagrad.size, dtype=np.int64), 0.0)
        kept = np.array([row for row in used if row < len(then) and then[row] == ids[row]], np.int64)
        rows, accumulated = (
            torch.from_numpy(np.asarray(state.table(table.name))[kept]).to(table.data)
            for table in (self.rows, self.adagrad)
        )
        self.write(kept, rows)
        self.adagrad.put(kept, accumulated)
        self._restore_dense(state)

    def _restore_dense(self, state: State) -> None:
        self.dense.restore(state)
        self.optimizer.restore("trainer/network", state)


def _some(examples: Examples, share: float, random: np.random.Generator) -> Examples:
    """A share of the examples, rounded up, drawn at random and in their order. All of them draw no number."""
    if share >= 1:
        return examples
    n = len(examples.item)
    chosen = np.sort(random.permutation(n)[: math.ceil(share * n)])
    return Examples(*(getattr(examples, column.name)[chosen] for column in fields(examples)))


def adamw(dense: Parameters, config: NetworkConfig, quick: frozenset[str]) -> AdamW:
    """The optimizer of the dense parameters: layers decay, `quick` ones do not, and each kind has its own rate."""
    rate, decay = dense.like(), dense.like()
    for name in rate.shapes:
        layer = name not in quick
        rate[name].fill_(config.dense_rate if layer else config.lag_rate)
        decay[name].fill_(config.decay if layer else 0.0)
    return AdamW.over(dense.vector, rate.vector, decay.vector)


def first_rows(seed: int, ids: Sequence[str], dim: int) -> Tensor:
    """[n, D] rows of length about 1, from seed and ids alone, so that the order of arrival does not matter."""
    return torch.from_numpy(uniform_rows(seed, ids, dim) * np.float32(math.sqrt(3 / dim)))


def unique_rows(size: int, *rows: Index) -> Index:
    """The rows that occur in any of `rows`, ascending. By marking: sorting 60,000 rows takes ten times as long."""
    mark = np.zeros(size, np.bool_)
    for part in rows:
        mark[part] = True
    return np.flatnonzero(mark)
