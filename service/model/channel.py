"""What a channel of the model is: something that proposes items for a history, and knows something of pairs.

A channel owns its whole life: its rows and tensors, how it learns, what it proposes, how it is saved, restored and put
back to a version. Whoever goes over channels (the learner, the publisher, the gate, a reader) knows none by name and
asks for their traits. A new channel is one file in channels/, one line in registry.py and one section of the
configuration. tests/service/model/test_channel_laws.py holds every channel of the registry to the laws.

A channel's state is rows keyed by item and a few small tensors, so all of it travels the same way: as touched rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from consumers.micro_batch import ItemChange
from model_store.weights import Array, State, Update
from service.model.contexts import Contexts
from service.model.ranker import Blend
from service.model.row_table import IdTable, RowTable

Index = NDArray[np.int64]

AddScores = Callable[[Tensor, int], None]
"""Adds to scores [B, n] of the n items from a row on."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What is to be known of tables and tensors, by name, without knowing whose they are.

    That a table is for trainers alone is seen by its name: it begins with `trainer/`.
    """

    learned: frozenset[str] = frozenset()
    """Changed by gradients, which may spoil them: the gate's reference has its own and shares all others, and watches
    how large they are."""
    logarithms: frozenset[str] = frozenset()
    """May hold -inf, the logarithm of zero; everything else that readers load is finite."""

    def __or__(self, other: "Traits") -> "Traits":
        return Traits(self.learned | other.learned, self.logarithms | other.logarithms)


@dataclass(frozen=True, slots=True)
class Examples:
    """n events of a micro-batch in their order, as columns: those that are targets, or those that are dislikes."""

    item: Index  # [n] row
    time: Index  # [n] on the event clock
    weight: NDArray[np.float64]  # [n] above 0 for targets, below for dislikes
    history: NDArray[np.int32]  # [n, L] what the user had done before, most recent last, -1 for padding

    @classmethod
    def none(cls, length: int) -> "Examples":
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty((0, length), np.int32))


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a micro-batch has to teach, and all that learning from it may depend on."""

    step: int  # micro-batches before this one
    clock: int  # accepted events before this one
    seed: int
    replay: int  # past targets to learn again for each fresh one
    examples: Examples
    disliked: Examples
    blend: Blend  # by which the channels' numbers are added up; taught by the channel whose loss it is part of
    common: Callable[[Tensor], Tensor]  # rows [n] -> [n, F] what the channels without histories know of them

    def random(self) -> np.random.Generator:
        """From (seed, step) and nothing else: the same lesson draws the same numbers."""
        return np.random.Generator(np.random.Philox(key=[self.seed & (2**64 - 1), self.step]))


@dataclass(frozen=True, slots=True)
class Taught:
    """What became of a lesson; as it is by default, nothing was learned by gradient."""

    loss: float | None = None  # mean over contexts; None where there were none, or the step was skipped
    fresh: int = 0  # contexts of this micro-batch
    replayed: int = 0  # contexts of earlier ones
    grad_norm: float = 0.0
    touched: int = 0  # rows
    skipped: bool = False  # loss or gradient not finite: nothing learned by gradient has changed


class Channel(Protocol):
    """The reader's half: what lists are made of."""

    @property
    def name(self) -> str:
        """As in the registry."""

    @property
    def width(self) -> int:
        """F: how many numbers it knows of a pair (history, item)."""

    @property
    def personal(self) -> bool:
        """Whether these depend on the history. Of those that do not, the ranker learns how much each number counts."""

    @property
    def traits(self) -> Traits: ...

    @property
    def tables(self) -> Sequence[RowTable | IdTable]:
        """Its rows keyed by item, and whatever else it keeps in tables; a reader's copy may keep fewer."""

    @property
    def tensors(self) -> Mapping[str, Array]:
        """Small tensors, as copies."""

    def resize(self, size: int) -> None:
        """Makes room for items; their rows are empty until something is learned of them."""

    def forget(self, rows: Index) -> None:
        """Takes out everything that refers to rows whose items were expired, before they mean other items."""

    def apply(self, update: Update) -> None:
        """Takes over what an update holds of this channel. Costs what the update's rows cost."""

    def candidates(self, contexts: Contexts, n: int, clock: int) -> Index:
        """[B, n] rows that it proposes to each history, best first; -1 where there are fewer."""

    def score(self, contexts: Contexts, rows: Tensor, clock: int) -> Tensor:
        """[B, C, F] what it knows of each history with each of the rows [B, C]; float32, finite."""

    def add_common(self, weights: Tensor, clock: int, scores: Tensor, start: int = 0) -> None:
        """The fast path over all items, for what does not depend on histories: adds `score` weighed by `weights`
        [BUCKETS, F] to scores [BUCKETS, n] of the n items from row `start` on; there may be room behind the last item.

        Worked out once a change of the model, not once a user.
        """

    def asked_by(self, contexts: Contexts, weights: Tensor) -> AddScores | None:
        """The fast path for what depends on histories: what adds `score` weighed by `weights` [B, F]; None without."""

    def share(self, other: "Channel") -> None:
        """Takes the tables of another of this kind that are not learned by gradient in place of its own."""


class LearningChannel(Channel, Protocol):
    """The trainer's half."""

    def begin(self, rows: Index, ids: Sequence[str]) -> None:
        """New items, in rows that there is room for."""

    def describe(self, rows: Index, changes: Sequence[ItemChange]) -> None:
        """What the catalogue says of items, which have these rows [n]; in the order of the stream, an item may come
        twice."""

    def learn(self, lesson: Lesson) -> Taught:
        """Learns by gradient, before anything of the lesson is counted. Changes nothing by a gradient that is not
        finite."""

    def observe(self, examples: Examples) -> None:
        """Counts, after every channel has learned, and whatever became of the gradient."""

    def restore(self, state: State) -> None:
        """Goes on from a version as the channel that wrote it would have, bit for bit; the items are there already.

        Raises: ValueError where a table's rows are of another shape than the configuration says.
        """

    def reset(self, state: State, ids: Sequence[str]) -> None:
        """Puts what is learned by gradient back to a version; what is counted stays. `ids` [N] are those of the rows
        now, "" of a free one; what came after the version begins anew."""
