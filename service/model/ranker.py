"""The ranker: a small network over the features of a pair (history, candidate), which orders a history's candidates.

    z_t(h, i) = linear_t . x(h, i) + out_t . relu(relu(x(h, i) . first) . second)      of task t: a click, a purchase
    score = (1 - purchases) z_click + purchases z_purchase

It learns listwise (ListNet's top-one loss: Cao et al., ICML 2007): for each history the softmax over its candidates of
each task's z, and the cross-entropy to the candidate that came. Both tasks share the two hidden layers (hard parameter
sharing: Caruana 1997). Every event is a lesson for `click`; a purchase is one for `purchase`, and so is the click that
led to it, with the history as it was before that click.

What serves is the average of the weights over the latest steps (Polyak & Juditsky 1992, with exponential decay), which
moves less from version to version than the weights themselves. The last hidden layer begins at zero and `linear` at a
blend of few features, so a new ranker is that fixed blend until it has learned better.

Gradients are written by hand: two products back, and no graph to build. Shapes: P pairs, F features, H hidden, T tasks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store.weights import Array, State
from service.model.channel import Taught
from service.model.config import RankerConfig
from service.model.features import FeatureSet
from service.model.hashing import uniform_rows
from service.model.kernels.softmax import cross_entropy
from service.model.parameters import Parameters

Index = NDArray[np.int64]

TASKS = ("click", "purchase")
BEGINNING = {"neighbours.share": 2.0, "popularity.count_2000": 0.3, "network.cosine": 4.0}
"""The fixed blend: the weights with which `linear` begins, of the features that are there."""
STEP = 32  # histories in one step of the optimizer; fewer make a step that is as much shorter
FEWEST = 8  # rows in a product: with 3 and fewer the library takes another way, whose last bits differ


@dataclass(frozen=True, slots=True)
class RankingLesson:
    """Histories with their candidates and what came, in the order of the stream."""

    x: NDArray[np.float32]  # [P, F]
    offsets: Index  # [B + 1] the candidates of history b: offsets[b] to offsets[b + 1]
    target: Index  # [B] the pair that came
    weight: NDArray[np.float32]  # [B, T] how much it counts for each task


class Ranker:
    """For readers `weights` is what serves; a trainer has the weights it learns besides."""

    def __init__(self, config: RankerConfig, features: FeatureSet, seed: int, device: str = "cpu") -> None:
        self.config, self.features, self.device = config, features, device
        wide, hidden, tasks = features.width, config.hidden, len(TASKS)
        shapes = {
            "linear": (wide, tasks),
            "first": (wide, hidden),
            "first_bias": (hidden,),
            "second": (hidden, hidden),
            "second_bias": (hidden,),
            "out": (hidden, tasks),
        }
        self.weights = Parameters("ranker", shapes, device)
        for name, fan_in in (("first", wide), ("second", hidden)):
            rows, columns = shapes[name]
            values = uniform_rows(seed, [f"ranker/{name}/{row}" for row in range(rows)], columns)
            self.weights[name].copy_(torch.from_numpy(values / np.float32(np.sqrt(fan_in))))
        for name, weight in BEGINNING.items():
            if name in features.names:
                self.weights["linear"][features.column(name)] = weight
        self._learned = Parameters("trainer/ranker", shapes, device)
        self._learned.vector.copy_(self.weights.vector)
        self._gradient = self._learned.like()
        self._moments = torch.zeros(2, len(self.weights.vector), device=device)  # [2, parameters] Adam's
        self._steps = 0.0  # of 32 histories each

    # -- scores --------------------------------------------------------------------------------------------------------

    def score(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """[P] the scores of pairs with features x [P, F]. A pair's score does not depend on the others."""
        n = len(x)
        if n < FEWEST:
            x = np.concatenate([x, np.zeros((FEWEST - n, x.shape[1]), np.float32)])
        weights, given = self.weights, torch.from_numpy(x).to(self.device)
        tasks = torch.tensor([1 - self.config.purchases, self.config.purchases], device=self.device)
        _, second = self._hidden(weights, given)
        # row by row, since the last bits of a product with one column depend on how many rows there are
        score = (given * (weights["linear"] @ tasks)).sum(1) + second.mul_(weights["out"] @ tasks).sum(1)
        scored: NDArray[np.float32] = score.cpu().numpy()[:n]
        return scored

    @staticmethod
    def _hidden(weights: Parameters, x: Tensor) -> tuple[Tensor, Tensor]:
        """The hidden layers [P, H]."""
        first = torch.addmm(weights["first_bias"], x, weights["first"]).relu_()
        return first, torch.addmm(weights["second_bias"], first, weights["second"]).relu_()

    # -- learning ------------------------------------------------------------------------------------------------------

    def learn(self, lesson: RankingLesson) -> Taught:
        """Steps of up to 32 histories each, in order. The loss is that of `click`, the mean over histories. Where it or
        a gradient is not finite, that step and the rest of the lesson are left out."""
        n, losses = len(lesson.target), 0.0
        for begin in range(0, n, STEP):
            end = min(begin + STEP, n)
            loss = self._step(lesson, begin, end)
            if loss is None:
                return Taught(fresh=begin, skipped=True)
            losses += loss
        return Taught(losses / n, fresh=n) if n else Taught()

    def _step(self, lesson: RankingLesson, begin: int, end: int) -> float | None:
        offsets = lesson.offsets[begin : end + 1]
        x = torch.from_numpy(lesson.x[offsets[0] : offsets[-1]]).to(self.device)
        weights, gradient = self._learned, self._gradient
        first, second = self._hidden(weights, x)
        z = torch.mm(x, weights["linear"]).addmm_(second, weights["out"])
        slope = np.empty(tuple(z.shape), np.float32)  # of the loss by z
        loss = cross_entropy(
            z.cpu().numpy(),
            offsets - offsets[0],
            lesson.target[begin:end] - offsets[0],
            lesson.weight[begin:end],
            slope,
        )
        by_z = torch.from_numpy(slope).to(self.device).div_(end - begin)
        by_second = (by_z @ weights["out"].T).mul_(second > 0)
        by_first = (by_second @ weights["second"].T).mul_(first > 0)
        for name, left, right in (
            ("linear", x, by_z), ("out", second, by_z), ("second", first, by_second), ("first", x, by_first)
        ):  # fmt: skip
            torch.mm(left.T, right, out=gradient[name])
        gradient["second_bias"].copy_(by_second.sum(0))
        gradient["first_bias"].copy_(by_first.sum(0))
        if not np.isfinite(loss) or not bool(torch.isfinite(gradient.vector.square().sum())):
            return None
        self._descend((end - begin) / STEP)
        return float(loss)

    def _descend(self, part: float) -> None:
        """Adam (Kingma & Ba 2015), `part` of a step: the rate and what the moments and the average forget are that part
        of a whole step's, so that it matters little how a stream is cut into micro-batches."""
        beta1, beta2, kept = (base**part for base in (0.9, 0.99, self.config.average))
        mean, square = self._moments
        mean.lerp_(self._gradient.vector, 1 - beta1)
        square.mul_(beta2).addcmul_(self._gradient.vector, self._gradient.vector, value=1 - beta2)
        self._steps += part
        unbiased = mean / (1 - 0.9**self._steps)
        root = (square / (1 - 0.99**self._steps)).sqrt_().add_(1e-8)
        self._learned.vector.sub_(unbiased.div_(root), alpha=self.config.rate * part)
        # the first steps count alike in the average, else the beginning would stay in it for long
        self.weights.vector.lerp_(self._learned.vector, max(1 - kept, part / (1 + self._steps / 4)))

    # -- versions ------------------------------------------------------------------------------------------------------

    @property
    def learned(self) -> frozenset[str]:
        """As `Traits.learned`."""
        return frozenset(self.weights.names)

    @property
    def tensors(self) -> dict[str, Array]:
        """What readers load, as copies."""
        return self.weights.tensors() | {"ranker/features": self.features.digest}

    @property
    def trainer_tensors(self) -> dict[str, Array]:
        """What a trainer needs besides, as copies."""
        return self._learned.tensors() | {
            "trainer/ranker/moments": self._moments.cpu().numpy().copy(),
            "trainer/ranker/steps": np.array([self._steps], np.float64),
        }

    def fits(self, tensors: Mapping[str, Array]) -> bool:
        """Whether the features of an update, where it has any, are those of this build."""
        theirs = tensors.get("ranker/features")
        return theirs is None or np.array_equal(theirs, self.features.digest)

    def apply(self, tensors: Mapping[str, Array]) -> None:
        """Takes over the weights that serve, where `tensors` has them."""
        if self.weights.are_in(tensors):
            self.weights.load(tensors)

    def restore(self, state: State) -> None:
        """Goes on from a version as the ranker that wrote it would have, bit for bit."""
        self.weights.restore(state)
        self._learned.restore(state)
        self._moments.copy_(torch.from_numpy(np.array(state.tensor("trainer/ranker/moments"))))
        self._steps = float(state.tensor("trainer/ranker/steps")[0])


def joined(lessons: Sequence[RankingLesson]) -> RankingLesson:
    """Lessons one after the other; at least one."""
    at = np.cumsum([0] + [len(lesson.x) for lesson in lessons])
    ends = [lesson.offsets[1:] + begin for lesson, begin in zip(lessons, at, strict=False)]
    return RankingLesson(
        np.concatenate([lesson.x for lesson in lessons]),
        np.concatenate([[0], *ends]),
        np.concatenate([lesson.target + begin for lesson, begin in zip(lessons, at, strict=False)]),
        np.concatenate([lesson.weight for lesson in lessons]),
    )
