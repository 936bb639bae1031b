"""The model as a whole: items, channels and blend, and the k best items of each history. Readers hold one; the trainer
learns in one."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store.errors import InvalidUpdate
from model_store.weights import Update
from service.model.channel import AddScores, Channel, LearningChannel, Traits
from service.model.config import ModelConfig
from service.model.contexts import BUCKETS, Contexts
from service.model.formats import upgraded
from service.model.item_table import ItemTable
from service.model.ranker import Repeats
from service.model.registry import blend_of, learners, readers
from service.model.row_table import BLOCK
from service.model.selection import best_of

Index = NDArray[np.int64]

# Added to the logit of an item that must not be listed: far below any logit, and finite, so that no NaN comes of it
NEVER = -1e9
# Users at a time: 64 x 43,000 scores are 11 MB and take 6 ms; more at once only use more memory
USERS_AT_ONCE = 64
# Scores at a time where a pass over all items is made in strips: 1 MB
STRIP = 1 << 18


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
        self.channels: Sequence[Channel] = readers(config, device) if channels is None else channels
        self.blend = blend_of(config, self.channels, device)
        self._common: Tensor | None = None  # [BUCKETS, C] what `prepare` returns; None: the model has changed since

    @classmethod
    def to_learn_in(cls, config: ModelConfig, device: str = "cpu") -> "tuple[Recommender, list[LearningChannel]]":
        """A model for a trainer, and its channels as learning channels."""
        channels = learners(config, device)
        return cls(config, device, channels=channels), channels

    @property
    def traits(self) -> Traits:
        """The traits of every table and tensor of the model."""
        found = Traits(learned=self.blend.learned)
        for channel in self.channels:
            found |= channel.traits
        return found

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
        not hold logarithms has an -inf.
        """
        update = upgraded(update)
        _check_logarithms(update, self.traits)
        if update.full:
            self.items = ItemTable(self.config.items)
            self.channels = readers(self.config, self.device)
            self.blend = blend_of(self.config, self.channels, self.device)
        if (ids := update.tables.get("item/id")) is not None:
            self.items.names.apply(ids)
        if (listable := update.tables.get("item/listable")) is not None:
            self.items.listable.apply(listable)
        self.items.listable.resize(self.size)
        for channel in self.channels:
            channel.apply(update)
        self.blend.apply(update.tensors)
        self.resize(self.size)
        if "clock" in update.tensors:
            self.clock = int(np.asarray(update.tensors["clock"])[0])
        self.changed()

    def resize(self, size: int) -> None:
        """Makes room for `size` items in every channel."""
        for channel in self.channels:
            channel.resize(size)

    def changed(self) -> None:
        """To be called when rows, parameters, the clock or the items that may be listed have changed."""
        self._common = None

    def share(self, other: "Recommender") -> None:
        """Uses the items and tables of `other` for all that is not learned by gradient: its later changes show here.

        `other` is a model of the same configuration.
        """
        self.items = other.items
        for mine, theirs in zip(self.channels, other.channels, strict=True):
            mine.share(theirs)

    # -- scores --------------------------------------------------------------------------------------------------------

    def common(self, rows: Tensor) -> Tensor:
        """[n, F] the scores of rows [n] by the channels that are not personal."""
        nobody = Contexts.of(np.full((1, 1), -1))
        found = [
            channel.score(nobody, rows.unsqueeze(0), self.clock)[0] for channel in self.channels if not channel.personal
        ]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def prepare(self) -> Tensor:
        """[BUCKETS, C] the part of the logits that does not depend on histories, C >= size.

        Computed once a change of the model. Scoring calls it; a reader calls it before, so that the first group of
        lists by new weights does not wait.
        """
        if self._common is None:
            self._common = self._common_of(0, self._width)
        return self._common

    def scores(self, contexts: Contexts) -> Tensor:
        """[B, C] the logit of every item, C >= size; NEVER, or near it, where an item must not be listed."""
        return _scores_of(contexts, self.prepare(), self._adders(contexts), 0)

    def ranks(self, contexts: Contexts, target: Index) -> Index:
        """[B] how many items would be listed before each target [B]; very large where a target must not be listed.

        For a model that changes from call to call, so nothing is kept. A strip of items at a time, which stays in cache
        from the product to the comparison. Counts are summed as floats: exact for so few items, and four times as fast
        as a sum of booleans.
        """
        adders, width = self._adders(contexts), self._width
        strip = max(BLOCK, STRIP // max(contexts.n, BUCKETS) // BLOCK * BLOCK)

        def strip_from(start: int) -> Tensor:
            return _scores_of(contexts, self._common_of(start, min(start + strip, width)), adders, start)

        begins = target // strip * strip  # [B] the first row of the strip that holds the target
        held = {start: strip_from(start) for start in np.unique(begins).tolist()}
        mine = torch.empty(contexts.n, device=self.device)
        ahead = torch.zeros(contexts.n, dtype=torch.int64, device=self.device)
        for start, scores in held.items():
            here = torch.from_numpy(np.flatnonzero(begins == start)).to(self.device)
            at = torch.from_numpy(target - start).to(self.device)[here].unsqueeze(1)
            rows = scores.index_select(0, here)
            own = rows.gather(1, at)
            mine[here] = own[:, 0]
            # of equal scores the lower row comes first: count equal ones before the target here, and below those in
            # earlier strips
            equal = torch.eq(rows, own, out=torch.empty_like(rows))
            column = torch.arange(rows.shape[1], device=self.device, dtype=rows.dtype)
            before = torch.lt(column, at.to(rows.dtype), out=torch.empty_like(rows))
            ahead[here] = equal.mul_(before).sum(1).long()
        least_before = torch.nextafter(mine, torch.full_like(mine, -torch.inf))
        begin = torch.from_numpy(begins).to(self.device)
        for start in range(0, width, strip):
            scores = held[start] if start in held else strip_from(start)
            least = torch.where(begin > start, least_before, mine)
            ahead += torch.gt(scores, least.unsqueeze(1), out=torch.empty_like(scores)).sum(1).long()
        ahead[mine < NEVER / 2] = 1 << 40
        ranks: Index = ahead.cpu().numpy()
        return ranks

    @property
    def _width(self) -> int:
        """Columns of scores: whole blocks."""
        return -(-self.size // BLOCK) * BLOCK

    def _common_of(self, start: int, stop: int) -> Tensor:
        """`prepare` for the rows from start to stop: [BUCKETS, stop - start]."""
        shut = torch.zeros(stop - start, device=self.device)
        shut.masked_fill_(torch.from_numpy(self.items.listable.array[start:stop] == 0).to(self.device), NEVER)
        common = shut.repeat(BUCKETS, 1)
        prior, at = self.blend.parameters["prior"], 0
        for channel in self.channels:
            if not channel.personal:
                channel.add_common(prior[:, at : at + channel.width], self.clock, common, start)
                at += channel.width
        return common

    def _adders(self, contexts: Contexts) -> list[AddScores]:
        scale = self.blend.scale(torch.from_numpy(contexts.bucket).to(self.device))
        found = [channel.adder(contexts, scale) for channel in self.channels if channel.personal]
        return [*(add for add in found if add is not None), Repeats(self.blend, contexts)]

    # -- lists ---------------------------------------------------------------------------------------------------------

    def top_k(
        self,
        history_rows: Index,
        k: int,
        *,
        exclude: NDArray[np.bool_] | None = None,
        hide: Index | None = None,
    ) -> tuple[Index, NDArray[np.float32]]:
        """The k best items of each user, best first: rows [B, k] and scores [B, k]; -1 and 0.0 where there are fewer.

        `history_rows` [B, L']: item rows, most recent last, -1 for padding anywhere. `exclude` [size]: True for items
        not to list for anyone. `hide` [B, H]: rows not to list for this user, -1 for padding. Of equal scores the lower
        row comes first. An empty history gives the trending list.
        """
        length = self.history_length
        histories = np.asarray(history_rows, dtype=np.int64)[:, -length:]
        if histories.shape[1] < length:
            histories = np.pad(histories, ((0, 0), (length - histories.shape[1], 0)), constant_values=-1)
        n = len(histories)
        rows = np.full((n, k), -1, dtype=np.int64)
        values = np.zeros((n, k), dtype=np.float32)
        excluded = None if exclude is None else torch.from_numpy(np.flatnonzero(exclude)).to(self.device)
        for start in range(0, n if self.size else 0, USERS_AT_ONCE):
            part = slice(start, min(start + USERS_AT_ONCE, n))
            scores = self.scores(Contexts.of(histories[part]))
            if excluded is not None:
                scores.index_fill_(1, excluded, NEVER)
            if hide is not None:
                owner, column = np.nonzero(hide[part] >= 0)
                hidden = torch.from_numpy(np.asarray(hide[part], dtype=np.int64)[owner, column]).to(self.device)
                scores[torch.from_numpy(owner).to(self.device), hidden] = NEVER
            best_rows, best = best_of(scores, k, least=NEVER / 2)
            rows[part, : best_rows.shape[1]] = best_rows
            values[part, : best.shape[1]] = best
        return rows, values


def _scores_of(contexts: Contexts, common: Tensor, adders: Sequence[AddScores], start: int) -> Tensor:
    """[B, n] the logits of the n items from row `start` on. `common` [BUCKETS, n]: the part without histories."""
    scores = common.index_select(0, torch.from_numpy(contexts.bucket).to(common.device))
    for add in adders:
        add(scores, start)
    return scores


def _check_logarithms(update: Update, traits: Traits) -> None:
    """Refuses an -inf outside tables of logarithms. The store lets it pass: it does not know which tables those are."""
    for name, rows in update.tables.items():
        values = rows.values
        if name.startswith("trainer/") or name in traits.logarithms or isinstance(values, list):
            continue
        if values.size and np.issubdtype(values.dtype, np.floating) and np.isneginf(values.min()):
            raise InvalidUpdate(f"{name}: holds -inf and no logarithms")
