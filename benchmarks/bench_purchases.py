"""What does it cost, and what does it bring, to count the chance of a purchase in the order of lists?

The simulated shop, whose truth is known afterwards: which views led to a purchase. Each event is ranked before it is
learned from; the second half of the stream is measured. With each weight (TIDEMILL_PURCHASE_WEIGHT) the model learns
the same stream from the beginning. HR@20 of all events, of purchases, and of the views of items that the user did not
have before and bought later: the purchase's first click is credited for them.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import orjson

from consumers.batcher import MicroBatcher
from consumers.decode import DecodeRules, decode
from consumers.micro_batch import MicroBatch
from consumers.records import Record
from service.model.registry import NEW_MODEL
from service.shop.shop import Shop, ShopConfig
from service.training.learner import Learner

BATCH = 256


def stream(events: int) -> Iterator[MicroBatch]:
    """The shop's catalogue and events, in their order."""
    rules = DecodeRules()
    batcher = MicroBatcher(BATCH, 0.0, list(rules.event_types), time.monotonic)
    shop = Shop(ShopConfig(opened_at_ms=1 << 40))
    messages = (
        Record(moment.topic, 0, n, -1, None, orjson.dumps(moment.message)) for n, moment in enumerate(shop.moments())
    )
    left = events
    while left > 0 and (part := list(islice(messages, 1024))):
        for batch in batcher.add(decode(part, rules, 1 << 42)):
            left -= len(batch)
            yield batch


def led_to_purchase(batches: list[MicroBatch], purchase: int) -> list[np.ndarray]:
    """For each batch, which events are a user's first one on an item that they bought later."""
    first: dict[tuple[str, str], tuple[int, int]] = {}
    led = [np.zeros(len(batch), np.bool_) for batch in batches]
    for number, batch in enumerate(batches):
        for place, (user, item, kind) in enumerate(
            zip(batch.user.tolist(), batch.item.tolist(), batch.type.tolist(), strict=True)
        ):
            if item < 0:
                continue
            pair = (batch.users[user], batch.items[item])
            at = first.setdefault(pair, (number, place))
            if kind == purchase and at != (number, place):
                led[at[0]][at[1]] = True
    return led


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.25, 0.5, 1.0])
    arguments = parser.parse_args()
    batches = list(stream(arguments.events))
    purchase = list(NEW_MODEL.history.event_weights).index("purchase")
    led = led_to_purchase(batches, purchase)
    assert NEW_MODEL.ranker is not None
    for weight in arguments.weights:
        learner = Learner(replace(NEW_MODEL, ranker=NEW_MODEL.ranker.model_copy(update={"purchases": weight})))
        learner.evaluate_sample = None
        hits: dict[str, list[np.ndarray]] = {"all events": [], "purchases": [], "views that led to one": []}
        for number, batch in enumerate(batches):
            each = learner.learn(batch).each
            if number < len(batches) // 2:
                continue
            hit = each.ahead < 20
            hits["all events"].append(hit)
            hits["purchases"].append(hit[batch.type[each.place] == purchase])
            hits["views that led to one"].append(hit[led[number][each.place]])
        joined = {name: np.concatenate(parts) for name, parts in hits.items()}
        print(
            f"purchase weight {weight:.2f}: HR@20 "
            + ", ".join(
                f"{name} {each.mean():.4f} ± {each.std() / np.sqrt(max(1, len(each))):.4f} (n={len(each):,})"
                for name, each in joined.items()
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
