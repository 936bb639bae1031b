"""Real events through the real thing: their lists must be better than popularity's."""

import gzip
import json
import math
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.integration.world import World, until

DATA = Path(__file__).parents[3] / "shared" / "data" / "movietweetings.events.jsonl.gz"
EVENTS = 20_000
JUDGED = 3_000  # the events after those, none of them sent


def _events() -> list[dict[str, Any]]:
    with gzip.open(DATA) as lines:
        return [json.loads(line) for _, line in zip(range(EVENTS + JUDGED), lines, strict=False)]


def _popular(events: list[dict[str, Any]], half_life: float) -> list[str]:
    count: defaultdict[str, float] = defaultdict(float)
    for age, event in enumerate(reversed(events)):
        count[event["item_id"]] += 0.5 ** (age / half_life)
    return sorted(count, key=lambda item: -count[item])[:20]


def _ndcg(ranked: list[str], item: str) -> float:
    return 1 / math.log2(ranked.index(item) + 2) if item in ranked else 0.0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_lists_are_better_than_popularity(world: World) -> None:
    if not DATA.exists():
        pytest.skip(f"no real events at {DATA}")
    events = _events()
    world.start("trainer")
    world.start("scorer")
    until(world.live, 60, "a first version")

    def trainer_keeps_up(learned: int) -> None:
        until(lambda: world.live_events() >= learned or None, 60, f"{learned} events learned")

    for number, event in enumerate(events[:EVENTS]):
        world.send(event)
        if number % 50 == 0:
            time.sleep(0.05)  # 1,000 a second at most, as they would come: small micro-batches
        if number % 500 == 0:  # how often events are replayed depends on what waits: it is to be as on an idle machine
            trainer_keeps_up(number - 2000)
    world.flush()
    live = until(world.learned_all, 120, "everything learned")
    assert live["events_trained"] == EVENTS
    # the next event of users who have a list, on items that are known: lists and popularity of the same moment
    known = {event["item_id"] for event in events[:EVENTS]}
    users = {event["user_id"] for event in events[:EVENTS]}
    judged: dict[str, str] = {}
    for event in events[EVENTS:]:
        if event["user_id"] in users and event["item_id"] in known:
            judged.setdefault(event["user_id"], event["item_id"])
    assert len(judged) > 300

    def all_fresh() -> bool:
        return all((world.recs(user) or {"model_version": 0})["model_version"] >= live["version"] for user in judged)

    until(all_fresh, 60, "every list of the last version")
    lists = {user: world.items_of(user)[:20] for user in judged}
    popular = _popular(events[:EVENTS], half_life=1000)
    ours = sum(_ndcg(lists[user], item) for user, item in judged.items()) / len(judged)
    theirs = sum(_ndcg(popular, item) for user, item in judged.items()) / len(judged)
    print(f"NDCG@20 over {len(judged)} users: lists {ours:.4f}, popularity {theirs:.4f}")
    assert ours > theirs
