"""The model as a whole: items, channels and what orders them, and the k best items of each history. Readers hold one;
the trainer learns in one."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store.errors import InvalidUpdate
from model_store.weights import Array, State, Update
from service.model.blend import Blend
from service.model.catalogue_scores import CatalogueScores
from service.model.channel import BlendedChannel, Channel, LearningChannel, Traits
from service.model.config import ModelConfig
from service.model.contexts import Contexts
from service.model.features import FeatureSet
from service.model.formats import upgraded
from service.model.item_table import ItemTable
from service.model.query import NOT_KNOWN, Query, padded
from service.model.ranker import Ranker
from service.model.registry import blend_of, learners, readers
from service.model.reranking import Kept, Lists, Reranking

Index = NDArray[np.int64]

LISTS_AT_ONCE = 64  # histories whose candidates are looked for together: their hash tables are 4 MB


class Recommender:
    """Applies updates, and makes lists by `top_k`. Not thread-safe: the caller lets `apply` and `top_k` take turns."""

    def __init__(
        self, config: ModelConfig, device: str = "cpu", *, channels: Sequence[LearningChannel] | None = None
    ) -> None:
        """`channels`: a trainer's, where it learns in this model; by default a reader's are made.

        Raises: UnknownConfig where this build cannot make a model of the configuration.
        """
        self.config, self.device = config, device
        self.items = ItemTable(config.items)
        self.clock = 0
        self.now = 0.0  # the stream's time, epoch seconds: see stream_time.py
        self._set_up(readers(config, device) if channels is None else channels)

    def _set_up(self, channels: Sequence[Channel]) -> None:
        self.channels = channels
        self.blend: Blend | None = blend_of(self.config, channels, self.device)
        self.reranking: Reranking | None = None
        self.catalogue: CatalogueScores | None = None
        if self.config.ranker is not None:
            features = FeatureSet(channels, self.config.ranker.without)
            ranker = Ranker(self.config.ranker, features, self.config.seed, self.device)
            self.reranking = Reranking(channels, features, ranker, self.items)
        else:
            assert self.blend is not None, "without a ranker there is a blend"
            blended = [channel for channel in channels if isinstance(channel, BlendedChannel)]
            self.catalogue = CatalogueScores(blended, self.blend, self.device)
        self.changed()

    @classmethod
    def to_learn_in(cls, config: ModelConfig, device: str = "cpu") -> "tuple[Recommender, list[LearningChannel]]":
        """A model for a trainer, and its channels as learning channels."""
        channels = learners(config, device)
        return cls(config, device, channels=channels), channels

    @property
    def traits(self) -> Traits:
        """The traits of every table and tensor of the model."""
        found = Traits(learned=frozenset().union(*(part.learned for part in self._weighing)))
        for channel in self.channels:
            found |= channel.traits
        return found

    @property
    def _weighing(self) -> "list[Blend | Ranker]":
        """The parts that weigh channels against each other."""
        parts: list[Blend | Ranker] = [] if self.blend is None else [self.blend]
        return parts if self.reranking is None else [*parts, self.reranking.ranker]

    @property
    def ids(self) -> list[str]:
        """[size] the id of each row; "" for a free row."""
        return self.items.names.ids

    @property
    def size(self) -> int:
        """Rows of items, in use or free."""
        return self.items.size

    @property
    def history_length(self) -> int:
        return self.config.history.length

    def rows_of(self, ids: Sequence[str]) -> Index:
        """[n] rows, -1 for ids that are not known."""
        return self.items.rows_of(ids)

    # -- updates -------------------------------------------------------------------------------------------------------

    def apply(self, update: Update) -> None:
        """Takes over an update: a full one replaces everything. Tables and tensors that only trainers load are skipped.

        Costs what the update's rows cost. Raises: InvalidUpdate, before anything has changed, where a table that does
        not hold logarithms has an -inf, or the ranker's features are not those of this build.
        """
        update = upgraded(update)
        _check_logarithms(update, self.traits)
        if self.reranking is not None and not self.reranking.ranker.fits(update.tensors):
            raise InvalidUpdate("ranker/features: this build's features are others than those of the version")
        if update.full:
            self.items = ItemTable(self.config.items)
            self._set_up(readers(self.config, self.device))
        if (ids := update.tables.get("item/id")) is not None:
            self.items.names.apply(ids)
        if (listable := update.tables.get("item/listable")) is not None:
            self.items.listable.apply(listable)
        self.items.listable.resize(self.size)
        for channel in self.channels:
            channel.apply(update)
        for part in self._weighing:
            part.apply(update.tensors)
        self.resize(self.size)
        if "clock" in update.tensors:
            self.clock = int(np.asarray(update.tensors["clock"])[0])
        if "stream/now" in update.tensors:
            self.now = float(np.asarray(update.tensors["stream/now"])[0])
        if self.reranking is not None and "ranker/serves" in update.tensors:
            self.reranking.serves = int(np.asarray(update.tensors["ranker/serves"])[0])
        self.changed()

    def resize(self, size: int) -> None:
        """Makes room for `size` items in every channel."""
        for channel in self.channels:
            channel.resize(size)

    def changed(self) -> None:
        """To be called when rows, parameters, the clock or the items that may be listed have changed."""
        self._shut: tuple[NDArray[np.bool_] | None, NDArray[np.bool_]] | None = None
        if self.catalogue is not None:
            self.catalogue.changed(self.items, self.clock)

    def share(self, other: "Recommender") -> None:
        """Uses the items and tables of `other` for all that is not learned by gradient: its later changes show here.

        `other` is a model of the same configuration.
        """
        self.items = other.items
        if self.reranking is not None:
            self.reranking.table = other.items
        for mine, theirs in zip(self.channels, other.channels, strict=True):
            mine.share(theirs)
        self.changed()

    # -- versions of a trainer -----------------------------------------------------------------------------------------

    @property
    def tensors(self) -> dict[str, Array]:
        """The tensors of a version that belong to no channel, as copies."""
        found: dict[str, Array] = {"clock": np.array([self.clock], np.int64)}
        for part in self._weighing:
            found |= part.tensors | part.trainer_tensors
        if self.reranking is not None:
            found["stream/now"] = np.array([self.now], np.float64)
            found["ranker/serves"] = np.array([self.reranking.serves], np.int64)
        return found

    def restore(self, state: State) -> None:
        """Restores `tensors` for a trainer that goes on from a version. Channels and items are restored already."""
        self.restore_weights(state)
        self.resize(self.items.size)
        self.clock = int(state.tensor("clock")[0])
        if self.reranking is not None:
            self.now = float(state.tensor("stream/now")[0])
            self.reranking.serves = int(state.tensor("ranker/serves")[0])
        self.changed()

    def restore_weights(self, state: State) -> None:
        """Restores what weighs the channels against each other."""
        for part in self._weighing:
            part.restore(state)

    # -- scores --------------------------------------------------------------------------------------------------------

    def common(self, rows: Tensor) -> Tensor:
        """[n, F] the scores of rows [n] by the channels that are not personal."""
        nobody = Contexts.of(np.full((1, 1), -1))
        found = [
            channel.score(nobody, rows.unsqueeze(0), self.clock)[0]
            for channel in self.channels
            if isinstance(channel, BlendedChannel) and not channel.personal
        ]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def prepare(self) -> None:
        """Computes what all lists have in common. Scoring does; a reader calls it before, so that the first group of
        lists by new weights does not wait."""
        if self.catalogue is not None:
            self.catalogue.prepare()

    def query(
        self,
        histories: NDArray[np.signedinteger],
        *,
        now: NDArray[np.float64] | None = None,
        idle: NDArray[np.float32] | None = None,
        exclude: NDArray[np.bool_] | None = None,
    ) -> Query:
        """A query of histories [B, L]. `now` [B]: epoch seconds, by default the stream's time. `idle` [B]: seconds
        since each user's last event; by default not known. `exclude` [size]: True for items not to list."""
        n = len(histories)
        return Query.of(
            histories,
            clock=self.clock,
            shut=self._shut_besides(exclude),
            now=np.full(n, self.now) if now is None else now,
            idle=np.full(n, NOT_KNOWN, np.float32) if idle is None else idle,
        )

    def query_at_rest(
        self,
        histories: Index,
        last: NDArray[np.float64] | None,
        exclude: NDArray[np.bool_] | None,
        after: float = 0.0,
    ) -> Query:
        """A query of histories [B, L] at the stream's time, but not before `after` seconds have passed since a user's
        own last event: `last` [B], epoch seconds, NOT_KNOWN where that is not known."""
        if last is None:
            return self.query(histories, exclude=exclude)
        now = np.maximum(self.now, last + np.where(last == NOT_KNOWN, 0.0, after))
        idle = np.where(last == NOT_KNOWN, NOT_KNOWN, now - last).astype(np.float32)
        return self.query(histories, now=now, idle=idle, exclude=exclude)

    def _shut_besides(self, exclude: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """[size] True for rows that must not be listed, `exclude` among them; made once a change of either."""
        if self._shut is None or self._shut[0] is not exclude:
            shut = self.items.listable.array[: self.size] == 0
            self._shut = exclude, shut if exclude is None else shut | exclude
        return self._shut[1]

    def ranks(self, histories: Index, target: Index, *, now: NDArray[np.float64], idle: NDArray[np.float32]) -> Index:
        """[B] how many items would be listed before each target [B]; very large where a target would not be listed.

        `histories` [B, L], `now` [B], `idle` [B]: as in `query`."""
        if self.catalogue is not None:
            return self.catalogue.ranks(Contexts.of(histories), target)
        assert self.reranking is not None
        return self.reranking.judge(self.query(histories, now=now, idle=idle), target).ahead

    # -- lists ---------------------------------------------------------------------------------------------------------

    def top_k(
        self,
        history_rows: Index,
        k: int,
        *,
        last: NDArray[np.float64] | None = None,
        exclude: NDArray[np.bool_] | None = None,
        hide: Index | None = None,
    ) -> tuple[Index, NDArray[np.float32]]:
        """The k best items of each user, best first: rows [B, k] and scores [B, k]; -1 and 0.0 where there are fewer.

        `history_rows` [B, L']: item rows, most recent last, -1 for padding anywhere. `last` [B]: the time of each
        user's last event, epoch seconds; NOT_KNOWN where that is not known, as by default. `exclude` [size]: True for
        items not to list for anyone. `hide` [B, H]: rows not to list for this user, -1 for padding. Of equal scores the
        lower row comes first. An empty history gives the trending list.
        """
        lists = self.lists(history_rows, k, last=last, exclude=exclude, hide=hide)
        return lists.rows, lists.scores

    def lists(
        self,
        history_rows: Index,
        k: int,
        *,
        last: NDArray[np.float64] | None = None,
        exclude: NDArray[np.bool_] | None = None,
        hide: Index | None = None,
        keep: int = 0,
        after: float = 0.0,
    ) -> Lists:
        """As `top_k`, with the `keep` best candidates of each user, for `lists_again`; a model without a ranker keeps
        none. `after`: the lists are for a reader who comes no sooner than so many seconds after a user's last event, by
        the stream's time."""
        histories = self._of_full_length(history_rows)
        if self.catalogue is not None:
            return Lists(*self.catalogue.top_k(histories, k, exclude, hide), [])
        assert self.reranking is not None
        n = len(histories)
        made = Lists(np.full((n, k), -1, np.int64), np.zeros((n, k), np.float32), [])
        for start in range(0, n if self.size else 0, LISTS_AT_ONCE):
            part = slice(start, start + LISTS_AT_ONCE)
            query = self.query_at_rest(histories[part], None if last is None else last[part], exclude, after)
            some = self.reranking.lists(query, k, None if hide is None else np.asarray(hide[part], np.int64), keep=keep)
            made.rows[part], made.scores[part] = some.rows, some.scores
            made.kept.extend(some.kept)
        return made

    def related(
        self, rows: Index, k: int, *, exclude: NDArray[np.bool_] | None = None
    ) -> tuple[Index, NDArray[np.float32]]:
        """What goes with each of the items `rows` [B], best first: rows and scores [B, k]; -1 and 0 where there are
        fewer, as for an item without neighbours. A model without a ranker knows of nothing."""
        none = np.full((len(rows), k), -1, np.int64), np.zeros((len(rows), k), np.float32)
        if self.reranking is None or not len(rows):
            return none
        return self.reranking.related(self.query(rows[:, None], exclude=exclude), k)

    def keeps(self, kept: Kept) -> bool:
        """Whether candidates that were kept are this model's as it is now; they are another one's after a full
        update."""
        return self.reranking is not None and kept.table is self.items

    def lists_again(
        self,
        kept: Sequence[Kept],
        k: int,
        *,
        last: NDArray[np.float64] | None = None,
        exclude: NDArray[np.bool_] | None = None,
        after: float = 0.0,
    ) -> Lists:
        """Orders candidates [B] that were kept for users who have not acted since; `keeps` is true of each. The other
        arguments as for `lists`."""
        assert self.reranking is not None, "without a ranker nothing is kept"
        histories = padded([each.history for each in kept])[:, ::-1]
        return self.reranking.again(self.query_at_rest(histories, last, exclude, after), kept, k)

    def _of_full_length(self, history_rows: Index) -> Index:
        """[B, L] the latest items of histories of any length."""
        length = self.history_length
        histories = np.asarray(history_rows, dtype=np.int64)[:, -length:]
        if histories.shape[1] < length:
            histories = np.pad(histories, ((0, 0), (length - histories.shape[1], 0)), constant_values=-1)
        return histories


def _check_logarithms(update: Update, traits: Traits) -> None:
    """Refuses an -inf outside tables of logarithms. The store lets it pass: it does not know which tables those are."""
    for name, rows in update.tables.items():
        values = rows.values
        if name.startswith("trainer/") or name in traits.logarithms or isinstance(values, list):
            continue
        if values.size and np.issubdtype(values.dtype, np.floating) and np.isneginf(values.min()):
            raise InvalidUpdate(f"{name}: holds -inf and no logarithms")
