"""What gradients change, and what their optimizers remember: item rows with Adagrad, the dense vector with AdamW.

The one place where weights change. Every sum has one order: the same steps give the same bits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store.weights import Array, State
from service.model.contexts import Contexts
from service.model.hashing import uniform_rows
from service.model.losses import Sample, sampled_softmax
from service.model.network import Dense, Network, normalise
from service.model.optimizers import AdamW, adagrad_rows
from service.model.popularity import Popularity
from service.model.row_table import RowTable
from service.training.learner_config import LearnerConfig

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Step:
    """What a batch has to teach: contexts with their targets, fresh ones and then replayed ones."""

    clock: int  # accepted events before this batch
    contexts: Contexts  # B of them, none empty
    target: Index  # [B]
    weight: NDArray[np.float32]  # [B]
    fresh: int  # so many contexts, the first ones, are fresh
    judging: int  # so many of those, the first ones, teach how the channels are weighed


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a gradient step; as it is by default, of one without contexts."""

    loss: float | None = None  # mean over contexts; None where there were none, or the step was skipped
    grad_norm: float = 0.0
    touched: int = 0  # rows
    skipped: bool = False  # loss or gradient not finite: nothing has changed


class Weights:
    """Those of a network whose rows are kept. `popularity` is what its logits are added to."""

    def __init__(self, network: Network, popularity: Popularity, config: LearnerConfig) -> None:
        assert network.rows is not None
        self.network, self.rows, self.popularity = network, network.rows, popularity
        self.adagrad = RowTable("trainer/item/adagrad", (), torch.float32, device=config.device)
        self._seed, self._row_rate = config.seed, config.row_rate
        initialise(network.dense, config)
        self.optimizer = adamw(network.dense, config)

    @property
    def tensors(self) -> dict[str, Array]:
        """What AdamW remembers, as copies. How many steps it has made is among the learner's counters."""
        return {
            "trainer/optimizer/first": self.optimizer.first.cpu().numpy().copy(),
            "trainer/optimizer/second": self.optimizer.second.cpu().numpy().copy(),
        }

    def begin(self, rows: Index, ids: Sequence[str]) -> None:
        """New items, in rows that the network has room for."""
        self.adagrad.resize(self.rows.size)
        self.network.write(rows, first_rows(self._seed, ids, self.network.shape.dim).to(self.rows.data.device))

    def forget(self, rows: Index) -> None:
        """Empties what was remembered of rows whose items were expired; the network forgets the rows themselves."""
        self.adagrad.put(rows, 0.0)

    def descend(self, step: Step, sample: Sample) -> Outcome:
        """Applies one gradient, if it is finite."""
        if not step.contexts.n:
            return Outcome()
        size, device = self.rows.size, self.rows.data.device
        unique = unique_rows(size, step.contexts.rows, step.target, sample.rows)
        local = np.empty(size, np.int64)
        local[unique] = np.arange(len(unique))
        index = torch.from_numpy(unique).to(device)
        rows = self.rows.data.index_select(0, index)  # [U, D]
        unit, norm = normalise(rows)
        gradients = sampled_softmax(
            self.network.dense,
            unit,
            norm,
            self.popularity.features(step.clock, index),
            replace(step.contexts, rows=local[step.contexts.rows]),
            local[step.target],
            step.weight,
            Sample(local[sample.rows], sample.log_expected),
            step.judging,
        )
        squared = float(gradients.rows.square().sum()) + float(gradients.dense.vector.square().sum())
        if not (math.isfinite(gradients.loss) and math.isfinite(squared)):
            return Outcome(grad_norm=math.inf, skipped=True)
        rows, accumulated = adagrad_rows(rows, gradients.rows, self.adagrad.data.index_select(0, index), self._row_rate)
        self._write(unique, rows, accumulated)
        self.optimizer.step(self.network.dense.vector, gradients.dense.vector)
        return Outcome(gradients.loss / float(step.weight.sum()), math.sqrt(squared), len(unique))

    def _write(self, rows: Index, values: Tensor, accumulated: Tensor) -> None:
        self.network.write(rows, values)
        self.adagrad.put(rows, accumulated)

    def load_dense(self, state: State) -> None:
        """The dense vector and what AdamW remembers, from a version."""
        dense, optimizer = self.network.dense, self.optimizer
        dense.load({f"network/{name}": state.tensor(f"network/{name}") for name in dense.shapes})
        optimizer.first.copy_(torch.from_numpy(np.array(state.tensor("trainer/optimizer/first"))))
        optimizer.second.copy_(torch.from_numpy(np.array(state.tensor("trainer/optimizer/second"))))
        optimizer.steps = int(np.asarray(state.tensor("trainer/counters"))[2])

    def reset(self, state: State, ids: Sequence[str]) -> None:
        """Back to a version. `ids` [N] are those of the rows now, "" of a free one; what came after it begins anew."""
        then = state.table("item/id")
        used = [row for row, item in enumerate(ids) if item]
        self.begin(np.array(used, np.int64), [ids[row] for row in used])
        self.adagrad.put(np.arange(self.adagrad.size, dtype=np.int64), 0.0)
        kept = np.array([row for row in used if row < len(then) and then[row] == ids[row]], np.int64)
        rows, accumulated = (
            torch.from_numpy(np.asarray(state.table(table.name))[kept]).to(table.data)
            for table in (self.rows, self.adagrad)
        )
        self._write(kept, rows, accumulated)
        self.load_dense(state)


def initialise(dense: Dense, config: LearnerConfig) -> None:
    for name in ("in_weight", "out_weight"):
        rows, columns = dense[name].shape
        values = uniform_rows(config.seed, [f"network/{name}/{i}" for i in range(rows)], columns)
        gain = 1.0 if name == "in_weight" else 0.1  # the sum alone is a good encoder to begin with
        dense[name].copy_(torch.from_numpy(values * (gain * math.sqrt(3 / rows))))
    dense["log_scale"].fill_(math.log(config.scale))
    # what is popular now counts from the first event; without, the first 30,000 ratings lose .01 of NDCG
    later = config.half_lives[1:]
    dense["prior"].fill_(0.2 / max(1, len(later)))
    dense["prior"][:, 0] = 0.8
    dense["lag_weight"].copy_(torch.arange(config.history) * math.log(0.8))


def adamw(dense: Dense, config: LearnerConfig) -> AdamW:
    """Layers decay and have a rate of their own; scale, prior, repeat and lag weights do not decay."""
    rate, decay = dense.like(), dense.like()
    for name in rate.shapes:
        layer = name.startswith(("in_", "out_"))
        rate[name].fill_(config.dense_rate if layer else config.scalar_rate)
        decay[name].fill_(config.decay if layer else 0.0)
    return AdamW.over(dense.vector, rate.vector, decay.vector)


def first_rows(seed: int, ids: Sequence[str], dim: int) -> Tensor:
    """[n, D] rows of length about 1, from seed and ids alone: no matter who comes first, and when."""
    return torch.from_numpy(uniform_rows(seed, ids, dim) * np.float32(math.sqrt(3 / dim)))


def unique_rows(size: int, *rows: Index) -> Index:
    """The rows that occur, ascending: by marking, since sorting 60,000 of them takes ten times as long."""
    mark = np.zeros(size, np.bool_)
    for part in rows:
        mark[part] = True
    return np.flatnonzero(mark)
