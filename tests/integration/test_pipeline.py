"""The main job, end to end: events into Kafka, lists out of Redis, by the contract alone."""

import math
import random
import time
from typing import Any

import pytest

from tests.integration.world import World, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def _click(user: int, item: int, number: int | None = None) -> dict[str, Any]:
    event = {"user_id": f"u{user}", "item_id": f"i{item}", "type": "click", "ts": int(time.time() * 1000)}
    return event if number is None else event | {"event_id": f"e{number}"}


def _taste(rng: random.Random, users: int = 100) -> tuple[int, int]:
    """The learnable world: user u likes the items that leave u % 10 when divided by 10."""
    user = rng.randrange(users)
    return user, rng.randrange(30) * 10 + user % 10


def _valid(recs: dict[str, Any], user: str) -> bool:
    ids = [item["item_id"] for item in recs["items"]]
    scores = [item["score"] for item in recs["items"]]
    return (
        recs["user_id"] == user
        and 0 < len(ids) == len(set(ids)) <= 50
        and scores == sorted(scores, reverse=True)
        and all(math.isfinite(score) for score in scores)
    )


def test_users_of_known_taste_get_lists_of_their_taste(world: World) -> None:
    world.start("trainer")
    world.start("scorer")
    for item in range(300):
        world.send({"item_id": f"i{item}", "title": f"item {item}"}, topic="items")
    world.flush()
    first = until(world.live, 60, "a version before the first event")
    assert first["version"] >= 1
    assert first["events_trained"] == 0
    rng = random.Random(1)
    for _ in range(6000):
        world.send(_click(*_taste(rng)))
    world.flush()
    live = until(world.learned_all, 60, "everything learned")
    assert live["events_trained"] == 6000
    world.send(_click(777, 13))  # never seen in training, one event
    world.flush()
    until(lambda: world.recs("u777"), 20, "a list after one event")
    learned = until(world.learned_all, 20, "that event learned from")
    until(
        lambda: (world.recs("u777") or {})["model_version"] >= learned["version"], 20, "scored by what learned from it"
    )
    recs = world.recs("u777")
    assert recs is not None
    assert _valid(recs, "u777")
    assert recs["events_seen"] == 1
    ids = world.items_of("u777")[:20]
    assert sum(int(item[1:]) % 10 == 3 for item in ids) >= 15, ids
    default = until(lambda: world.redis.call("GET", "tidemill:recs_default"), 5, "the trending list")
    assert b'"items":[{' in default


def test_killed_processes_lose_and_double_nothing(world: World) -> None:
    """SIGKILL of the trainer and of a scorer while events flow; some are sent twice, some are garbage."""
    trainer, scorer = world.start("trainer"), world.start("scorer")
    until(world.live, 60, "a first version")
    rng, seen, versions = random.Random(2), dict.fromkeys(range(100), 0), []
    for number in range(3000):
        user, item = _taste(rng)
        world.send(_click(user, item, number))
        seen[user] += 1
        if number % 50 == 25:
            world.send(_click(user, item, number))
        if number % 100 == 50:
            world.send(b'{"user_id": "u1", "item_id": \xff', key="u1")
        if number in (1000, 2000):
            world.flush()
            time.sleep(0.5)
            world.kill(trainer)
            trainer = world.start("trainer")
        if number == 1500:
            world.flush()
            world.kill(scorer)
            scorer = world.start("scorer")
        if number % 10 == 0:
            time.sleep(0.01)
            live = world.live()
            versions.append(live["version"] if live else 0)
    world.flush()
    live = until(world.learned_all, 60, "everything learned")
    assert live["events_trained"] == 3000
    assert versions == sorted(versions)

    def wrong() -> dict[int, int | None]:
        counted = {user: (world.recs(f"u{user}") or {}).get("events_seen") for user in seen}
        return {user: count for user, count in counted.items() if count != seen[user]}

    until(lambda: not wrong(), 60, "every history exact")
    assert trainer.poll() is None
    assert scorer.poll() is None


def test_deleted_and_unavailable_items_leave_lists_at_rest(world: World) -> None:
    world.start("trainer")
    world.start("scorer", TIDEMILL_ACTIVE_SECONDS="1")  # the user is forgotten soon: their list is at rest
    for item in range(30):
        world.send({"item_id": f"i{item}", "title": f"item {item}"}, topic="items")
    for item in range(30):
        world.send(_click(1, item))
    world.flush()
    until(lambda: len(world.items_of("u1")) == 30, 60, "a list of the whole catalogue")
    time.sleep(2.5)
    world.send(None, topic="items", key="i3")
    world.send({"item_id": "i4", "title": "item 4", "available": False}, topic="items")
    world.flush()
    until(lambda: not {"i3", "i4"} & set(world.items_of("u1")), 10, "both items gone")
    assert len(world.items_of("u1")) == 28
    world.send(_click(2, 5))
    world.flush()
    until(lambda: world.items_of("u2"), 20, "another user's list")
    assert not {"i3", "i4"} & set(world.items_of("u2"))
    world.start("scorer")  # reads the catalogue from the beginning before its first list
    until(lambda: "i3" not in world.items_of("u2") and world.items_of("u2"), 10, "still gone")


def test_a_second_trainer_waits_and_takes_over(world: World) -> None:
    first = world.start("trainer")
    before = until(world.live, 60, "a first version")
    world.start("trainer")
    time.sleep(4)
    world.send(_click(1, 1))
    world.flush()
    assert until(world.learned_all, 20, "the event learned")["run_id"] == before["run_id"]
    world.kill(first)
    world.send(_click(1, 2))
    world.flush()
    after = until(world.learned_all, 30, "the second trainer has taken over")
    assert after["run_id"] != before["run_id"]
    assert after["events_trained"] == 2


def test_a_model_of_another_kafka_cluster_is_refused(world: World, tmp_path: Any) -> None:
    from service.local import embedded_kafka

    trainer = world.start("trainer")
    until(world.live, 60, "a first version")
    trainer.terminate()
    assert trainer.wait(20) == 0
    with embedded_kafka() as other:
        refused = world.start("trainer", TIDEMILL_KAFKA_BOOTSTRAP=other)
        assert refused.wait(60) == 1
        last = world.log("trainer").strip().splitlines()[-1]
        assert last.startswith("tidemill: ")
        assert "--fresh" in last
        world.start("trainer", TIDEMILL_KAFKA_BOOTSTRAP=other, TIDEMILL_FRESH="1")
        until(lambda: (world.live() or {"version": 0})["version"] > 1, 60, "begun anew, with a higher version")
