"""Lists by candidates: channels propose, the ranker orders. The trainer's evaluation and the scorer call the same
function, so what is measured is what is served.

    query → looks of the channels → pairs (history, candidate) → features → scores → order
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.model import order
from service.model.candidates import FILLED, HISTORY, Union
from service.model.channel import Channel, Look
from service.model.features import FeatureSet
from service.model.floor import RANKER
from service.model.orders import simple_orders
from service.model.query import Pairs, Query, padded
from service.model.ranker import Ranker

Index = NDArray[np.int64]

RELATED_BY = "neighbours"
"""The channel whose order says what goes with an item."""

NOT_LISTED = 1 << 40
"""How many items come before one that is no candidate, or must not be listed: more than there ever are."""


@dataclass(frozen=True, slots=True)
class Described:
    """The pairs of a query with their features."""

    pairs: Pairs
    x: NDArray[np.float32]  # [P, F]
    looks: Sequence[Look]  # of the channels, in their order; valid until they look again


@dataclass(frozen=True, slots=True)
class Kept:
    """The best candidates of one history, with the features they had."""

    rows: NDArray[np.int32]  # [C]
    x: NDArray[np.float32]  # [C, F]
    history: NDArray[np.int32]  # [L'] the history, the latest item first
    hidden: NDArray[np.int32]  # [H'] rows not to list
    of_channels: tuple[object, ...]  # what each channel keeps of its look
    table: object  # the item table that rows are of: in another they are other items


@dataclass(frozen=True, slots=True)
class Lists:
    """The k best items of B histories, best first."""

    rows: Index  # [B, k]; -1 where there are fewer
    scores: NDArray[np.float32]  # [B, k]; 0 where there are fewer
    kept: list[Kept]  # [B] to order again later, or none where nothing was to be kept


@dataclass(frozen=True, slots=True)
class Judged:
    """How the targets [B] of a query were ranked: how many items come before each."""

    described: Described
    ahead: Index  # [B] in the list as it is served
    by_ranker: Index  # [B] the same, had the ranker served
    simple: Mapping[str, Index]  # simple order -> [B] the same, had that one served
    origin: tuple[str, ...]  # [B] the channel that proposed the target; "" where none did


class Reranking:
    """`serves` says who orders lists: the ranker, or one of `orders` by its number (see floor.py)."""

    def __init__(self, channels: Sequence[Channel], features: FeatureSet, ranker: Ranker, table: object = None) -> None:
        """`table`: the item table whose rows are ranked; see `Kept`."""
        self.table = table
        self.channels, self.features, self.ranker = channels, features, ranker
        self.orders = simple_orders(channels, features)
        self.serves = RANKER
        self._union = Union(ranker.config.candidates, ranker.config.history)

    @property
    def serves_name(self) -> str:
        """Who orders lists: "ranker", or the name of a simple order."""
        return "ranker" if self.serves == RANKER else self.orders[self.serves].name

    def describe(self, query: Query, hide: Index | None = None) -> Described:
        """The candidates and their features. `hide` [B, H]: rows not to list for this user, -1 for padding."""
        looks = [channel.look(query) for channel in self.channels]
        pairs = self._union.of(query, looks, hide)
        return Described(pairs, self.features.of(query, looks, pairs), looks)

    def scores(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """[P] the scores by which lists are ordered, finite, of pairs with features x [P, F]."""
        return self.ranker.score(x) if self.serves == RANKER else self.orders[self.serves].scores(x)

    def lists(self, query: Query, k: int, hide: Index | None = None, *, keep: int = 0) -> Lists:
        """The k best items of each history, and the `keep` best candidates to order again later."""
        described = self.describe(query, hide)
        pairs, x = described.pairs, described.x
        rows, scores, places = order.best(pairs, self.scores(x), max(k, keep))
        best = [of_one[of_one >= 0] for of_one in places[:, :keep]] if keep else []
        return Lists(
            rows[:, :k],
            scores[:, :k],
            [
                Kept(
                    pairs.rows[of_one],
                    x[of_one],
                    query.rows[query.offsets[b] : query.offsets[b + 1]].copy(),
                    np.empty(0, np.int32) if hide is None else hide[b][hide[b] >= 0].astype(np.int32),
                    tuple(look.kept(b) for look in described.looks),
                    self.table,
                )
                for b, of_one in enumerate(best)
            ],
        )

    def again(self, query: Query, kept: Sequence[Kept], k: int) -> Lists:
        """The k best of the candidates that were kept for these histories [B], and of those that channels propose now
        which renew theirs, by the weights, the counts and the time of now; what has joined is kept too. It costs a
        quarter of looking for candidates; what neighbour rows have learned since counts for the new ones alone.

        A list of candidates that nothing joins goes out of date quickly: after 5,000 events of MovieTweetings NDCG@20
        is .154 where new candidates have .289, and with the popular ones joined .283 (docs/decisions/ranking.md)."""
        looks = {channel.name: channel.look(query) for channel in self.channels if channel.renews}
        kept = self._with_new(query, kept, looks)
        rows, x = np.concatenate([each.rows for each in kept]), np.concatenate([each.x for each in kept])
        offsets = np.concatenate([[0], np.cumsum([len(each.rows) for each in kept])])
        if query.shut[rows].any():
            open_ = ~query.shut[rows]
            offsets = np.concatenate([[0], np.cumsum(open_)])[offsets]
            rows, x = rows[open_], x[open_]
        pairs = Pairs(rows, offsets, np.zeros(len(rows), np.uint8))
        self.features.renew(query, looks, pairs, x)
        best, scores, _ = order.best(pairs, self.scores(x), k)
        return Lists(best, scores, kept)

    def _with_new(self, query: Query, kept: Sequence[Kept], looks: Mapping[str, Look]) -> list[Kept]:
        """What was kept, and the candidates that `looks` propose besides, whose features `renew` completes."""
        out = padded([np.concatenate([each.rows, each.hidden]) for each in kept])
        new = self._union.of(query, list(looks.values()), out, proposed_alone=True)
        if not len(new.rows):
            return list(kept)
        x = np.zeros((len(new.rows), self.features.width), np.float32)
        for b, each in enumerate(kept):
            if len(each.rows):  # features of the history are the same for all its candidates
                x[new.at(b)] = each.x[0]
        self.features.of_more(query, [each.of_channels for each in kept], new, x)
        return [
            replace(each, rows=np.concatenate([each.rows, new.rows[at]]), x=np.concatenate([each.x, x[at]]))
            if (at := new.at(b)).start < at.stop
            else each
            for b, each in enumerate(kept)
        ]

    def related(self, query: Query, k: int) -> tuple[Index, NDArray[np.float32]]:
        """The k items that go best with the only item of each history, by what the neighbours know: rows and scores
        [B, k]; -1 and 0 where there are fewer."""
        described = self.describe(query, hide=query.histories.astype(np.int64))
        pairs = described.pairs
        scores = np.full(len(pairs.rows), -np.inf, np.float32)
        for each in self.orders:
            if each.alone and each.name == RELATED_BY:
                scores = each.known(described.x)
        rows, values, _ = order.best(pairs, scores, k)
        known = np.isfinite(values)
        return np.where(known, rows, -1), np.where(known, values, np.float32(0))

    def judge(self, query: Query, target: Index) -> Judged:
        """How the targets [B] are ranked."""
        described = self.describe(query)
        pairs, x = described.pairs, described.x
        by_ranker = order.ahead(pairs, self.ranker.score(x), target, NOT_LISTED)
        simple = {each.name: order.ahead(pairs, each.known(x), target, NOT_LISTED) for each in self.orders}
        if self.serves == RANKER:
            served = by_ranker
        else:
            served = order.ahead(pairs, self.orders[self.serves].scores(x), target, NOT_LISTED)
        names = [*(channel.name for channel in self.channels), HISTORY, FILLED]
        origin = tuple(names[pairs.origin[p]] if p >= 0 else "" for p in order.places(pairs, target).tolist())
        return Judged(described, served, by_ranker, simple, origin)
