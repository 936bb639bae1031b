"""The model as a whole: items, channels, ranker, and the best k of their scores. Readers hold one; the trainer learns
in one."""

import copy
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

# Added to what must not be listed; far below any logit, and finite, so that no arithmetic makes a NaN of it
NEVER = -1e9
# Users at a time: 64 x 43,000 scores are 11 MB and take 6 ms; more at once only use more memory
USERS_AT_ONCE = 64
# Scores at a time where items are gone over in strips: 1 MB
STRIP = 1 << 18


class Recommender:
    """Applies updates and answers `top_k`. Not thread-safe: apply and top_k take turns."""

    def __init__(
        self, config: ModelConfig, device: str = "cpu", *, channels: Sequence[LearningChannel] | None = None
    ) -> None:
        """`channels`: those of a trainer, which learns in this model; by default a reader's.

        Raises: UnknownConfig where this build cannot make a model of the configuration.
        """
        self.config, self.device = config, device
        self.items = ItemTable(config.items)
        self.clock = 0
        self.channels: Sequence[Channel] = readers(config, device) if channels is None else channels
        self.blend = blend_of(config, self.channels, device)
        self._common: Tensor | None = None  # [BUCKETS, C] what holds for all users of a bucket; C >= size

    @classmethod
    def to_learn_in(cls, config: ModelConfig, device: str = "cpu") -> "tuple[Recommender, list[LearningChannel]]":
        """A trainer's model, and its channels as the trainer uses them."""
        channels = learners(config, device)
        return cls(config, device, channels=channels), channels

    @property
    def traits(self) -> Traits:
        """Of every table and tensor of the model."""
        found = Traits(learned=self.blend.learned)
        for channel in self.channels:
            found |= channel.traits
        return found

    @property
    def ids(self) -> list[str]:
        """Row -> id; a free row has the id ""."""
        return self.items.names.ids

    @property
    def size(self) -> int:
        return self.items.size

    @property
    def history_length(self) -> int:
        return self.config.history.length

    def rows_of(self, ids: Sequence[str]) -> Index:
        """[n] rows, -1 for ids that are not known."""
        return self.items.rows_of(ids)

    def copy(self) -> "Recommender":
        """An independent copy."""
        return copy.deepcopy(self)

    # -- updates -------------------------------------------------------------------------------------------------------

    def load(self, full: Update) -> None:
        """Begins with a full update. Raises: InvalidUpdate; ValueError for one that is not full."""
        if not full.full:
            raise ValueError("a full update is needed")
        self.apply(full)

    def apply(self, update: Update) -> None:
        """Takes over an update, in place; what is for trainers alone is skipped. Costs what the update's rows cost.

        Raises: InvalidUpdate, before anything has changed, where a table holds -inf and no logarithms.
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
        for channel in self.channels:
            channel.resize(size)

    def changed(self) -> None:
        """To be called when rows, parameters, the clock or what may be listed have changed."""
        self._common = None

    def beside(self, other: "Recommender") -> None:
        """Takes from another model of this configuration all that is not learned by gradient, as it is and will be."""
        self.items = other.items
        for mine, theirs in zip(self.channels, other.channels, strict=True):
            mine.share(theirs)

    # -- scores --------------------------------------------------------------------------------------------------------

    def common(self, rows: Tensor) -> Tensor:
        """[n, F] what the channels without histories know of rows [n]."""
        nobody = Contexts.of(np.full((1, 1), -1))
        known = [
            channel.score(nobody, rows.unsqueeze(0), self.clock)[0] for channel in self.channels if not channel.personal
        ]
        return known[0] if len(known) == 1 else torch.cat(known, dim=1)

    def prepare(self) -> Tensor:
        """Works out what all users share, if that has changed: [BUCKETS, C] the part of the logits without histories.

        Scoring does it at need; a reader does it beforehand, so that the first group on new weights does not wait.
        """
        if self._common is None:
            self._common = self._common_of(0, self._width)
        return self._common

    def scores(self, contexts: Contexts) -> Tensor:
        """[B, C] the logit of every item, C >= size; NEVER, or near it, where it must not be listed."""
        return _scores_of(contexts, self.prepare(), self._asked_by(contexts), 0)

    def ranks(self, contexts: Contexts, target: Index) -> Index:
        """[B] how many items would be listed before each of these; very large where it must not be listed itself.

        For a model that changes from call to call: nothing is kept. Items are gone over a strip at a time, which stays
        in cache from the product to the comparison. Counting is done in floats, exact for so few and four times as fast
        as the sum of booleans.
        """
        asked, width = self._asked_by(contexts), self._width
        strip = max(BLOCK, STRIP // max(contexts.n, BUCKETS) // BLOCK * BLOCK)

        def strip_from(start: int) -> Tensor:
            return _scores_of(contexts, self._common_of(start, min(start + strip, width)), asked, start)

        begins = target // strip * strip  # [B] of the strip that holds the target
        held = {start: strip_from(start) for start in np.unique(begins).tolist()}
        mine = torch.empty(contexts.n, device=self.device)
        ahead = torch.zeros(contexts.n, dtype=torch.int64, device=self.device)
        for start, scores in held.items():
            here = torch.from_numpy(np.flatnonzero(begins == start)).to(self.device)
            at = torch.from_numpy(target - start).to(self.device)[here].unsqueeze(1)
            rows = scores.index_select(0, here)
            own = rows.gather(1, at)
            mine[here] = own[:, 0]
            # of equal scores the lower row comes first: here what stands before it, and all of the strips before
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
        """[BUCKETS, n] what holds for all users of a bucket, of the rows from start to stop."""
        shut = torch.zeros(stop - start, device=self.device)
        shut.masked_fill_(torch.from_numpy(self.items.listable.array[start:stop] == 0).to(self.device), NEVER)
        common = shut.repeat(BUCKETS, 1)
        prior, at = self.blend.parameters["prior"], 0
        for channel in self.channels:
            if not channel.personal:
                channel.add_common(prior[:, at : at + channel.width], self.clock, common, start)
                at += channel.width
        return common

    def _asked_by(self, contexts: Contexts) -> list[AddScores]:
        scale = self.blend.scale(torch.from_numpy(contexts.bucket).to(self.device))
        asked = [channel.asked_by(contexts, scale) for channel in self.channels if channel.personal]
        return [*(add for add in asked if add is not None), Repeats(self.blend, contexts)]

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

        `history_rows` [B, L']: item rows, most recent last, -1 for padding anywhere. `exclude` [size]: items not to
        list for anyone. `hide` [B, H]: rows not to list for this user, -1 for padding. Equal scores: lower row first.
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

    def trending(self, k: int, *, exclude: NDArray[np.bool_] | None = None) -> tuple[Index, NDArray[np.float32]]:
        """The list for users of whom nothing is known: what is popular now. Rows [k] and scores [k]."""
        rows, scores = self.top_k(np.full((1, 1), -1, dtype=np.int64), k, exclude=exclude)
        return rows[0], scores[0]


def _scores_of(contexts: Contexts, common: Tensor, asked: Sequence[AddScores], start: int) -> Tensor:
    """[B, n] the logits of the n items from row `start` on, of which `common` [BUCKETS, n] holds for all users."""
    scores = common.index_select(0, torch.from_numpy(contexts.bucket).to(common.device))
    for add in asked:
        add(scores, start)
    return scores


def _check_logarithms(update: Update, traits: Traits) -> None:
    """The store lets -inf pass, since only the model knows which tables hold logarithms."""
    for name, rows in update.tables.items():
        values = rows.values
        if name.startswith("trainer/") or name in traits.logarithms or isinstance(values, list):
            continue
        if values.size and np.issubdtype(values.dtype, np.floating) and np.isneginf(values.min()):
            raise InvalidUpdate(f"{name}: holds -inf and no logarithms")
