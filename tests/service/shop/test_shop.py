from collections import Counter
from itertools import islice

import orjson
import pytest

from consumers.decode import DecodeRules, decode
from consumers.events import DEFAULT_EVENT_WEIGHTS
from consumers.records import Record
from service.shop.shop import Moment, Shop, ShopConfig
from service.shop.wares import TOPICS

STAGES = {"view": 0, "click": 1, "add_to_cart": 2, "purchase": 3}


def stream(n: int, **config: float) -> list[Moment]:
    return list(islice(Shop(ShopConfig(**config)).moments(), n))  # type: ignore[arg-type]


def events(moments: list[Moment]) -> list[dict[str, object]]:
    return [moment.message for moment in moments if moment.topic == "events"]


def test_the_same_seed_gives_the_same_shop() -> None:
    assert Shop(ShopConfig(seed=7)).catalogue() == Shop(ShopConfig(seed=7)).catalogue()
    assert stream(5000, seed=7) == stream(5000, seed=7)
    assert stream(100, seed=7) != stream(100, seed=8)


def test_the_catalogue_is_a_few_thousand_items_with_titles_and_categories_of_their_own() -> None:
    catalogue = Shop(ShopConfig()).catalogue()
    assert len(catalogue) == 3000
    assert len({item["item_id"] for item in catalogue}) == len({item["title"] for item in catalogue}) == 3000
    assert {item["category"] for item in catalogue} == {topic.category for topic in TOPICS}
    assert all(isinstance(item["price"], float) and item["price"] > 0 for item in catalogue)


def test_every_message_fits_the_contract() -> None:
    shop = Shop(ShopConfig(seed=1, new_item_every=0.5, sold_out_every=0.5, restocked_after=2.0))
    messages = [("items", message) for message in shop.catalogue()]
    messages += [(topic, message) for _, topic, message in islice(shop.moments(1_700_000_000_000), 5000)]
    records = [
        Record(
            topic, 0, n, 0, str(message["user_id" if topic == "events" else "item_id"]).encode(), orjson.dumps(message)
        )
        for n, (topic, message) in enumerate(messages)
    ]
    decoded = decode(records, DecodeRules(event_types=DEFAULT_EVENT_WEIGHTS), now_ms=1_800_000_000_000)
    assert decoded.rejects == []


@pytest.mark.parametrize("rate", [1.0, 200.0, 2000.0])
def test_the_rate_holds_from_the_start(rate: float) -> None:
    moments = stream(int(rate * 20) + 200, seed=2, rate=rate)
    times = [moment.at for moment in moments]
    assert times == sorted(times)
    for begin, end in ((0.0, 10.0), (10.0, 20.0)):
        count = sum(begin <= moment.at < end for moment in moments if moment.topic == "events")
        assert abs(count - 10 * rate) < 6 * (10 * rate) ** 0.5  # six standard deviations of a Poisson count


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Shop(ShopConfig(rate=0.0))


def test_within_a_visit_an_item_goes_down_the_funnel_step_by_step() -> None:
    reached: dict[tuple[object, object], int] = {}
    for event in events(stream(40_000, seed=3)):
        if event["type"] == "search":
            continue
        place = (event["session_id"], event["item_id"])
        stage = STAGES[str(event["type"])]
        before = reached.get(place, -1)
        # the first step is a view; a step further only from the one before it; back to a view at any time
        assert stage <= before + 1
        reached[place] = max(before, stage)


def test_the_funnel_narrows() -> None:
    counts = Counter(event["type"] for event in events(stream(40_000, seed=4)))
    assert counts["view"] > 1.5 * counts["click"] > 3 * counts["add_to_cart"] > 4.5 * counts["purchase"] > 0
    assert counts["search"] > 0


def test_shoppers_keep_to_few_topics_and_drift() -> None:
    shop = Shop(ShopConfig(seed=5, shoppers=50, rate=10.0, mean_gap=1.0))
    topic_of = {item["item_id"]: item["tags"][0] for item in shop.catalogue()}  # type: ignore[index]
    early: dict[object, Counter[str]] = {}
    late: dict[object, Counter[str]] = {}
    for n, event in enumerate(events(list(islice(shop.moments(), 40_000)))):
        if (topic := topic_of.get(event.get("item_id"))) is not None:
            (early if n < 10_000 else late if n > 30_000 else {}).setdefault(event["user_id"], Counter())[topic] += 1
    lively = [user for user, counts in early.items() if counts.total() > 100]
    assert lively
    for user in lively:
        # chance would give four of sixty topics a fifteenth
        assert sum(count for _, count in early[user].most_common(4)) / early[user].total() > 0.4
    assert any(user in late and early[user].most_common(1)[0][0] != late[user].most_common(1)[0][0] for user in lively)


def test_new_items_are_announced_before_anybody_sees_them_and_are_then_seen() -> None:
    shop = Shop(ShopConfig(seed=6, new_item_every=2.0, sold_out_every=1e9))
    known = {item["item_id"] for item in shop.catalogue()}
    opening = set(known)
    seen = set()
    for moment in islice(shop.moments(), 30_000):
        item = moment.message.get("item_id")
        if moment.topic == "items":
            known.add(item)
        elif item is not None:
            assert item in known
            seen.add(item)
    assert len(known - opening) == 49 or abs(len(known - opening) - 50) < 5
    assert len(seen - opening) > 25


def test_what_is_sold_out_is_not_bought_until_it_is_back() -> None:
    shop = Shop(ShopConfig(seed=9, sold_out_every=0.5, restocked_after=5.0, items=300))
    out: dict[object, float] = {}
    back = 0
    for moment in islice(shop.moments(), 20_000):
        message = moment.message
        if moment.topic == "items":
            if message["available"]:
                back += out.pop(message["item_id"], None) is not None
            else:
                out[message["item_id"]] = moment.at
        elif message["type"] == "view" and message["item_id"] in out:
            # one that was on its way to the item may still look at it
            assert moment.at - out[message["item_id"]] < 60
    assert back > 20


def test_a_shop_of_one_item_works() -> None:
    assert len(events(stream(500, seed=1, items=1, new_item_every=1e9))) > 490
