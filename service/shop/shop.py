"""A simulated shop: a catalogue, and shoppers whose behaviour can be learned. Pure: no clock, no input or output.

What there is to learn, each with its own time scale: a shopper keeps to a few topics (hours; they drift from visit to
visit), goes from an item to what goes with it (seconds), some items are simply liked better (always), some are in
fashion (a minute or two), and new ones arrive all the time. The shoppers never see our lists: what they do does not
depend on what is recommended, so a figure measured on them is not a figure of our own making.
"""

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from service.shop.shelves import Item, Shelves
from service.shop.wares import NAMES, TOPICS

Message = dict[str, object]


@dataclass(frozen=True, slots=True)
class ShopConfig:
    """How large the shop is and how lively. The same configuration gives the same stream, message by message."""

    seed: int = 0
    rate: float = 300.0  # events per second, in the mean; an interval's count varies as a Poisson count does
    opened_at_ms: int = 0  # epoch milliseconds of second 0
    items: int = 3000  # at the opening
    shoppers: int = 3000  # at least; there are always enough that most are elsewhere
    mean_gap: float = 4.0  # seconds from one action of a visit to its next
    new_item_every: float = 6.0  # seconds
    fashion_every: float = 3.0  # seconds until one more item comes into fashion
    fashion_half_life: float = 60.0  # seconds
    sold_out_every: float = 15.0  # seconds until one more item is sold out
    restocked_after: float = 90.0  # seconds


class Moment(NamedTuple):
    """A message and when to publish it."""

    at: float  # seconds since the opening; never less than the moment before
    topic: Literal["events", "items"]
    message: Message


# One visit, as shares. Together they make about 60 % views, 25 % clicks, 8 % carts and 4 % purchases.
_SEARCHES_FIRST = 0.15
_CLICKS_A_VIEW = 0.45
_CARTS_A_CLICK = 0.3
_BUYS_THE_CART = 0.6
_LEAVES = 0.12  # after each item
_CHANGES_TOPIC = 0.1  # after each item
_FOLLOWS_FASHION = 0.1  # visits that look at whatever is liked, in any topic
_IS_NEW = 0.04  # visits by somebody never seen before
_DRIFTS = 0.15  # visits that begin with one interest exchanged for another
_DEVICES = ("phone", "phone", "phone", "desktop", "desktop", "tablet")


@dataclass(slots=True)
class _Shopper:
    user_id: str
    interests: list[int]  # topics, the dearest first
    device: str
    visits: int = 0
    is_here: bool = False


class _Action(NamedTuple):
    type: str
    item: Item | None
    query: str = ""


class Shop:
    def __init__(self, config: ShopConfig) -> None:
        if not config.rate > 0:
            raise ValueError("a shop's rate is above 0 events a second")
        self._config = config
        self._random = random.Random(config.seed)
        self._opened_at_ms = config.opened_at_ms
        self._events = 0
        self._people = 0
        self._shelves = Shelves(self._random, config.items, config.fashion_half_life, config.restocked_after)
        self._opening = [self._item_message(item) for item in self._shelves.items]
        self._shelves.weigh_all()
        self._visitors_at_once = max(1, round(config.rate * config.mean_gap))
        # a tenth of these people make a good third of the visits (`_next_shopper`)
        self._shoppers = [self._new_shopper() for _ in range(max(config.shoppers, 3 * self._visitors_at_once))]

    def catalogue(self) -> list[Message]:
        """The messages for `items` that describe the shop at its opening."""
        return [dict(message) for message in self._opening]

    def moments(self, opened_at_ms: int | None = None) -> Iterator[Moment]:
        """What happens from the opening on, without end. To be called once.

        opened_at_ms: where the time of the opening is known only now.
        """
        config, rng = self._config, self._random
        if opened_at_ms is not None:
            self._opened_at_ms = opened_at_ms
        gap = self._visitors_at_once / config.rate
        queue = [
            (rng.expovariate(1 / gap), serial, shopper, self._visit(shopper))
            for serial, shopper in ((n, self._next_shopper()) for n in range(self._visitors_at_once))
        ]
        heapq.heapify(queue)
        next_item, next_fashion, next_sold_out = config.new_item_every, config.fashion_every, config.sold_out_every
        while True:
            at, serial, shopper, visit = queue[0]
            while next_item <= at:
                yield Moment(next_item, "items", self._item_message(self._shelves.arrival(next_item), next_item))
                next_item += config.new_item_every
            while next_sold_out <= at:
                for item in self._shelves.change_stock(next_sold_out):
                    yield Moment(next_sold_out, "items", self._item_message(item, next_sold_out))
                next_sold_out += config.sold_out_every
            while next_fashion <= at:
                self._shelves.change_fashion(next_fashion)
                next_fashion += config.fashion_every
            self._shelves.now = at
            action = next(visit, None)
            while action is None:  # the visit is over, and somebody else comes in its place
                shopper.is_here = False
                shopper = self._next_shopper()
                visit = self._visit(shopper)
                action = next(visit, None)
            heapq.heapreplace(queue, (at + rng.expovariate(1 / gap), serial, shopper, visit))
            yield Moment(at, "events", self._event_message(shopper, action, at))

    # what a visit is

    def _visit(self, shopper: _Shopper) -> Iterator[_Action]:
        rng = self._random
        shopper.visits += 1
        if rng.random() < _DRIFTS:
            shopper.interests[rng.randrange(len(shopper.interests))] = self._some_topic(shopper.interests[0])
        topic = self._pick_topic(shopper)
        item = self._shelves.pick(topic)
        if rng.random() < _SEARCHES_FIRST:
            yield _Action("search", None, item.noun)
        cart: list[Item] = []
        while True:
            yield _Action("view", item)
            if rng.random() < _CLICKS_A_VIEW:
                yield _Action("click", item)
                if rng.random() < _CARTS_A_CLICK and item not in cart:
                    yield _Action("add_to_cart", item)
                    cart.append(item)
            if rng.random() < _LEAVES:
                break
            if rng.random() < _CHANGES_TOPIC:
                topic = self._pick_topic(shopper)
                item = self._shelves.pick(topic)
            else:
                item = self._shelves.pick_after(item)
        if cart and rng.random() < _BUYS_THE_CART:
            for bought in cart:
                yield _Action("purchase", bought)

    def _pick_topic(self, shopper: _Shopper) -> int:
        rng = self._random
        if rng.random() < _FOLLOWS_FASHION:
            return self._shelves.best_liked_of(8).topic
        # the first interest half of the time, the second a quarter of it, and so on
        for topic in shopper.interests[:-1]:
            if rng.random() < 0.5:
                return topic
        return shopper.interests[-1]

    # who the shoppers are

    def _new_shopper(self) -> _Shopper:
        rng = self._random
        self._people += 1
        interests = [rng.randrange(len(TOPICS))]
        for _ in range(rng.randint(1, 3)):
            interests.append(self._some_topic(interests[0]))
        return _Shopper(f"{rng.choice(NAMES)}-{self._people:04d}", interests, rng.choice(_DEVICES))

    def _next_shopper(self) -> _Shopper:
        """Somebody who is not in the shop: mostly one of the regulars, at times somebody new who takes a place."""
        rng = self._random
        while True:
            # the square makes those at the front come far more often
            place = int(rng.random() ** 2 * len(self._shoppers))
            if not self._shoppers[place].is_here:
                break
        if rng.random() < _IS_NEW:
            place = rng.randrange(len(self._shoppers))
            while self._shoppers[place].is_here:
                place = rng.randrange(len(self._shoppers))
            self._shoppers[place] = self._new_shopper()
        shopper = self._shoppers[place]
        shopper.is_here = True
        return shopper

    def _some_topic(self, like: int) -> int:
        """A topic, mostly of the same category as `like`."""
        rng = self._random
        if rng.random() < 0.6:
            return rng.choice([n for n, topic in enumerate(TOPICS) if topic.category == TOPICS[like].category])
        return rng.randrange(len(TOPICS))

    # the messages

    def _ts(self, at: float) -> int:
        return self._opened_at_ms + int(at * 1000)

    def _item_message(self, item: Item, at: float = 0.0) -> Message:
        topic = TOPICS[item.topic]
        return {
            "item_id": item.item_id,
            "title": item.title,
            "category": topic.category,
            "tags": [topic.name, item.noun, item.maker],
            "price": item.price,
            "available": item.available,
            "ts": self._ts(at),
        }

    def _event_message(self, shopper: _Shopper, action: _Action, at: float) -> Message:
        self._events += 1
        message: Message = {"user_id": shopper.user_id}
        if action.item is not None:
            message["item_id"] = action.item.item_id
        message["type"] = action.type
        message["ts"] = self._ts(at)
        # with the opening in it: a shop that opens again on the same Kafka must not look like a redelivery
        message["event_id"] = f"{self._opened_at_ms:x}-{self._events:x}"
        message["session_id"] = f"{shopper.user_id}.{shopper.visits}"
        if action.query:
            message["query"] = action.query
        if action.type == "purchase" and action.item is not None:
            message["value"] = action.item.price
        message["context"] = {"device": shopper.device}
        return message
