"""What a channel of the model is: a part that proposes items for a history and describes pairs (history, item).

A channel has its own rows and tensors. It learns, proposes and describes with them, and saves them, restores them and
puts them back to a version. The learner, the publisher, the gate and readers know no channel by name: they use this
protocol and its traits. A new channel is one file in channels/, one line in registry.py and one section of the
configuration.

tests/service/model/test_channel_laws.py holds every channel of the registry to the laws.

A channel's state is rows keyed by item and a few small tensors, so all of it travels the same way: as touched rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from consumers.micro_batch import ItemChange
from model_store.weights import Array, State, Update
from service.model.blend import Blend
from service.model.contexts import Contexts
from service.model.query import Query
from service.model.row_table import IdTable, RowTable

Index = NDArray[np.int64]

AddScores = Callable[[Tensor, int], None]
"""Adds to scores [B, n] of the n items from a row on."""


@dataclass(frozen=True, slots=True)
class Traits:
    """How tables and tensors are to be treated, by their names.

    A table or tensor that only trainers load has a name that begins with `trainer/`.
    """

    learned: frozenset[str] = frozenset()
    """Changed by gradients, which may spoil them: the gate watches their norms, and its reference keeps its own copies.
    The reference shares all other tables with the learner."""
    logarithms: frozenset[str] = frozenset()
    """May hold -inf, the logarithm of zero; everything else that readers load is finite."""

    def __or__(self, other: "Traits") -> "Traits":
        return Traits(self.learned | other.learned, self.logarithms | other.logarithms)


@dataclass(frozen=True, slots=True)
class Examples:
    """n events of a micro-batch in their order, as columns: those that are targets, or those that are dislikes."""

    item: Index  # [n] row
    time: Index  # [n] on the event clock
    ts: NDArray[np.float64]  # [n] when it happened, epoch seconds
    weight: NDArray[np.float64]  # [n] above 0 for targets, below for dislikes
    history: NDArray[np.int32]  # [n, L] what the user had done before, most recent last, -1 for padding

    @classmethod
    def none(cls, length: int) -> "Examples":
        return cls(
            np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0), np.empty((0, length), np.int32)
        )


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a micro-batch has to teach. Learning depends on nothing else, besides the channel's state."""

    step: int  # micro-batches before this one
    clock: int  # accepted events before this one
    seed: int
    replay: int  # past targets to learn again for each fresh one
    examples: Examples
    disliked: Examples
    blend: Blend | None  # adds up the channels' scores; taught by the network, whose loss it is part of
    common: Callable[[Tensor], Tensor]  # rows [n] -> [n, F] their scores by the channels that are not personal
    share: float = 1.0  # of the events, that the network learns from: less while the trainer is behind

    def random(self) -> np.random.Generator:
        """A generator made of (seed, step) alone: the same lesson draws the same numbers."""
        return np.random.Generator(np.random.Philox(key=[self.seed & (2**64 - 1), self.step]))


@dataclass(frozen=True, slots=True)
class Taught:
    """What a channel learned from a lesson. The defaults: nothing was learned by gradient."""

    loss: float | None = None  # mean over contexts; None where there were none, or the step was skipped
    fresh: int = 0  # contexts of this micro-batch
    replayed: int = 0  # contexts of earlier ones
    skipped: bool = False  # the loss or the gradient was not finite, and nothing has changed


class Look(Protocol):
    """What a channel sees of a query; valid until the channel looks again or changes."""

    @property
    def candidates(self) -> NDArray[np.int32]:
        """[B, n] rows proposed for each history, best first; -1 where there are fewer."""

    @property
    def reserve(self) -> NDArray[np.int32]:
        """[m] rows that may fill up the candidates of any history, best first."""

    def describe(self, rows: NDArray[np.int32], offsets: Index, out: NDArray[np.float32]) -> None:
        """Writes the channel's features of pairs into out [P, F], finite: rows [P] are candidates of whatever origin,
        those of history b from offsets[b] to offsets[b + 1]. A pair's features do not depend on the others."""

    def kept(self, b: int) -> object:
        """A copy of what `Channel.describe_more` needs of this look at history b; None: nothing."""


class Channel(Protocol):
    """What readers need: candidates and features, from what a trainer published."""

    @property
    def name(self) -> str:
        """The channel's name in the registry."""

    @property
    def feature_names(self) -> Sequence[str]:
        """[F] what `Look.describe` writes, column by column."""

    @property
    def leading(self) -> int:
        """The feature by which the channel orders items where it ranks alone."""

    @property
    def renews(self) -> bool:
        """Whether its candidates, and its features of kept ones, are made anew with each list, since they cost little
        and pass quickly."""

    @property
    def traits(self) -> Traits: ...

    @property
    def tables(self) -> Sequence[RowTable | IdTable]:
        """The tables that a version holds of this channel: rows keyed by item, and others. A reader may keep fewer."""

    @property
    def tensors(self) -> Mapping[str, Array]:
        """The small tensors that a version holds of this channel, as copies."""

    def resize(self, size: int) -> None:
        """Makes room for `size` items. New rows are empty until something is learned of their items."""

    def forget(self, rows: Index) -> None:
        """Removes every reference to rows whose items were expired, before the rows are given to other items."""

    def apply(self, update: Update) -> None:
        """Takes over what an update holds of this channel. Costs what the update's rows cost."""

    def look(self, query: Query) -> Look:
        """What the channel sees of a query."""

    def describe_more(
        self, query: Query, kept: Sequence[Any], rows: NDArray[np.int32], offsets: Index, out: NDArray[np.float32]
    ) -> None:
        """As `Look.describe`, of a few pairs that other channels propose for histories [B] that were looked at before:
        it may leave out what only a look tells. `kept` [B]: what those looks kept. `out` holds the features of another
        candidate of the same history, so what does not depend on the candidate is there already."""

    def share(self, other: "Channel") -> None:
        """Uses the tables of `other`, a channel of the same kind, for all that is not learned by gradient."""


@runtime_checkable
class BlendedChannel(Channel, Protocol):
    """A channel that the blend can add up over the whole catalogue (blend.py): models of earlier releases rank by it,
    and the network learns beside it."""

    @property
    def width(self) -> int:
        """F: how many scores the channel gives a pair (history, item)."""

    @property
    def personal(self) -> bool:
        """Whether the scores depend on the history. Where they do not, the blend learns a weight for each of the F."""

    def score(self, contexts: Contexts, rows: Tensor, clock: int) -> Tensor:
        """[B, C, F] the scores of the rows [B, C] for each history; float32, finite."""

    def add_common(self, weights: Tensor, clock: int, scores: Tensor, start: int) -> None:
        """The fast path over all items where scores do not depend on histories; nothing where they do.

        Adds `score`, weighed by `weights` [BUCKETS, F], to scores [BUCKETS, n]: those of the n rows from `start` on,
        some of which may lie beyond the last item. Called once a change of the model, not once a user.
        """

    def adder(self, contexts: Contexts, weights: Tensor) -> AddScores | None:
        """The fast path over all items where scores depend on histories; None where they do not.

        Returns a function that adds `score`, weighed by `weights` [B, F].
        """


class LearningChannel(Channel, Protocol):
    """What the trainer needs besides. For each micro-batch it calls `forget`, `begin`, `describe`, `learn`,
    `observe`."""

    def begin(self, rows: Index, ids: Sequence[str]) -> None:
        """Takes in new items [n]. Their rows exist already (`resize`)."""

    def describe(self, rows: Index, changes: Sequence[ItemChange]) -> None:
        """Takes in changes of the catalogue [n], in the order of the stream; their items have the rows [n]. An item may
        come twice."""

    def learn(self, lesson: Lesson) -> Taught:
        """Learns by gradient. A gradient that is not finite changes nothing."""

    def observe(self, examples: Examples, disliked: Examples) -> None:
        """Counts examples and dislikes. Called after every channel has learned, whether or not a gradient was
        finite."""

    def restore(self, state: State) -> None:
        """Goes on from a version as the channel that wrote it would have, bit for bit. The item table is restored
        already.

        Raises: ValueError where a table's rows are of another shape than the configuration says.
        """

    def reset(self, state: State, ids: Sequence[str]) -> None:
        """Puts what is learned by gradient back to a version; counts stay. `ids` [N] are the present items of the rows,
        "" for a free row. Items that the version did not have begin anew."""
