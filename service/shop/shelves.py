"""What a simulated shop has on its shelves: items that are liked, come into fashion, are sold out, and go together."""

import math
import random
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

from service.shop.wares import MAKERS, TOPICS, VARIANTS

_TAKES_A_COMPANION = 0.4  # goes on to what goes with the last item, rather than to another of the topic
_COMPANIONS = 4
_FASHION_PEAK = 15.0  # an item that comes into fashion is chosen so many times as often, at first


@dataclass(slots=True)
class Item:
    item_id: str
    title: str
    topic: int  # index into TOPICS
    noun: str
    maker: str
    price: float
    appeal: float
    companions: tuple["Item", ...] = ()
    fashion: float = 0.0  # how much it was in fashion at `fashionable_at`
    fashionable_at: float = 0.0
    available: bool = True


@dataclass(slots=True)
class _Shelf:
    """The items of one topic, with sums to draw from."""

    items: list[Item] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)


class Shelves:
    """The items, by topic (an index into TOPICS). Everything random is drawn from `rng`, in the order of the calls."""

    def __init__(self, rng: random.Random, items: int, fashion_half_life: float, restocked_after: float) -> None:
        self.now = 0.0  # seconds since the opening, to be kept by whoever draws
        self.items: list[Item] = []
        self._random = rng
        self._fashion_half_life = fashion_half_life  # seconds
        self._restocked_after = restocked_after  # seconds
        self._titles: set[str] = set()
        self._shelves = [_Shelf() for _ in TOPICS]
        self._sold_out: list[tuple[float, Item]] = []  # until when; in order
        for _ in range(items):
            self._add_item()

    def weigh_all(self) -> None:
        """As liked as each item is now."""
        for topic in range(len(TOPICS)):
            self._weigh(topic)

    def pick(self, topic: int) -> Item:
        shelf = self._shelves[topic]
        # rounding may put the draw on the very end
        return shelf.items[min(bisect(shelf.sums, self._random.random() * shelf.sums[-1]), len(shelf.items) - 1)]

    def pick_after(self, last: Item) -> Item:
        if last.companions and self._random.random() < _TAKES_A_COMPANION:
            companion = self._random.choice(last.companions)
            if companion.available:
                return companion
        return self.pick(last.topic)

    def best_liked_of(self, n: int) -> Item:
        return max(self._random.choices(self.items, k=n), key=self._liking)

    def _add_item(self) -> Item:
        rng = self._random
        number = rng.randrange(len(TOPICS))
        topic = TOPICS[number]
        while True:
            noun, maker = rng.choice(topic.nouns), rng.choice(MAKERS)
            title = f"{maker} {rng.choice(topic.qualities)} {noun}"
            if title in self._titles:
                title = f"{title}, {rng.choice(VARIANTS)}"
            if title not in self._titles:
                break
        self._titles.add(title)
        # the price leans to the lower end, and ends in 9 or 5 as prices do
        price = round(topic.low + (topic.high - topic.low) * rng.random() ** 2) + rng.choice((0.95, 0.99, 0.49, 0.0))
        item = Item(
            f"sku-{len(self.items) + 1:05d}", title, number, noun, maker, round(price, 2), rng.lognormvariate(0.0, 1.0)
        )
        shelf = self._shelves[number].items
        # what goes with it: of the same topic, and another thing
        others = [other for other in shelf if other.noun != noun]
        item.companions = tuple(rng.sample(others, min(_COMPANIONS, len(others))))
        for other in item.companions[:2]:  # the tie holds in both directions for some
            if len(other.companions) < 2 * _COMPANIONS:
                other.companions = (*other.companions, item)
        shelf.append(item)
        self.items.append(item)
        return item

    def _liking(self, item: Item) -> float:
        if not item.available:
            return 0.0
        if item.fashion == 0.0:
            return item.appeal
        age = (self.now - item.fashionable_at) / self._fashion_half_life
        return item.appeal * (1.0 + item.fashion * math.exp2(-age))

    def _weigh(self, topic: int) -> None:
        shelf = self._shelves[topic]
        if not shelf.items or not any(item.available for item in shelf.items):
            # a shelf is never empty: a topic without items borrows the best liked one
            self._restock_or_fill(topic)
        shelf.sums = list(accumulate(self._liking(item) for item in shelf.items))

    def _restock_or_fill(self, topic: int) -> None:
        shelf = self._shelves[topic]
        if not shelf.items:
            shelf.items.append(self._random.choice(self.items))
        for item in shelf.items:
            item.available = True

    def arrival(self, at: float) -> Item:
        """A new item."""
        self.now = at
        item = self._add_item()
        # what is new is looked at
        item.fashion, item.fashionable_at = _FASHION_PEAK, at
        self._weigh(item.topic)
        return item

    def change_fashion(self, at: float) -> None:
        """One more item comes into fashion."""
        self.now = at
        item = self._random.choice(self.items)
        item.fashion, item.fashionable_at = _FASHION_PEAK, at
        self.weigh_all()

    def change_stock(self, at: float) -> Iterator[Item]:
        """What was sold out long enough is there again, and perhaps one more is sold out: those that changed."""
        self.now = at
        while self._sold_out and self._sold_out[0][0] <= at:
            _, item = self._sold_out.pop(0)
            item.available = True
            self._weigh(item.topic)
            yield item
        item = self._random.choice(self.items)
        if item.available and sum(other.available for other in self._shelves[item.topic].items) > 1:
            item.available = False
            self._sold_out.append((at + self._restocked_after, item))
            self._weigh(item.topic)
            yield item
