"""Lists by scores of the whole catalogue: the blend adds up the channels' scores of every item.

Models of earlier releases rank so, and go on ranking so. A model with a ranker scores candidates alone (reranking.py).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.model.blend import Blend, Repeats
from service.model.channel import AddScores, BlendedChannel
from service.model.contexts import BUCKETS, Contexts
from service.model.item_table import ItemTable
from service.model.reranking import NOT_LISTED
from service.model.row_table import BLOCK
from service.model.selection import best_of

Index = NDArray[np.int64]

# Added to the logit of an item that must not be listed: far below any logit, and finite, so that no NaN comes of it
NEVER = -1e9
# Users at a time: 64 x 43,000 scores are 11 MB and take 6 ms; more at once only use more memory
USERS_AT_ONCE = 64
# Scores at a time where a pass over all items is made in strips: 1 MB
STRIP = 1 << 18


class CatalogueScores:
    """`changed` is to be called when rows, parameters, the clock or the items that may be listed have changed."""

    def __init__(self, channels: Sequence[BlendedChannel], blend: Blend, device: str) -> None:
        self.channels, self.blend, self.device = channels, blend, device
        self._common: Tensor | None = None  # [BUCKETS, C] what `prepare` returns; None: the model has changed since

    def changed(self, items: ItemTable, clock: int) -> None:
        self.items, self.clock = items, clock
        self._common = None

    @property
    def size(self) -> int:
        return self.items.size

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
        ahead[mine < NEVER / 2] = NOT_LISTED
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

    def top_k(
        self, histories: Index, k: int, exclude: NDArray[np.bool_] | None, hide: Index | None
    ) -> tuple[Index, NDArray[np.float32]]:
        """As `Recommender.top_k`; `histories` [B, L]."""
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
