from collections.abc import Sequence
from typing import Any

import pytest

from consumers.decode import DecodeRules
from consumers.events import DEFAULT_EVENT_WEIGHTS, Interaction
from consumers.memory_source import MemoryLog, MemorySource
from consumers.micro_batch import ItemChange
from consumers.records import TopicPartition
from consumers.times import now_ms
from model_store.errors import StoreUnavailable
from model_store.memory_store import MemoryStore
from model_store.redis_connection import RedisConnection
from service.health import Health
from service.metrics import ScorerMetrics
from service.model.history import HistoryRule
from service.scoring import list_writer as module
from service.scoring.active_users import ActiveUser, ActiveUsers, PlacedEvent
from service.scoring.blocked_items import BlockedItems
from service.scoring.freshness import Freshness
from service.scoring.list_index import Holders
from service.scoring.list_store import ListStore, UserList
from service.scoring.list_writer import DEFAULT_LIST_EVERY_S, LATEST_AGE_S, ListWriter
from service.scoring.reloader import Reloader
from service.scoring.user_history import UserHistory
from service.settings import ScorerSettings
from service.training.learner import Learner
from tests.consumers.samples import NOW_MS, item_json
from tests.service.scoring.workers import ITEMS, Clock
from tests.service.scoring.worlds import CONFIG, Trainer, body_of, items_of

HERE, THERE = TopicPartition("events", 0), TopicPartition("events", 1)


class Lists(ListStore):
    """Remembers which users were written together; takes as long, and is away, when told."""

    away = False
    took_s = 0.0

    def write_lists(self, lists: Sequence[UserList]) -> None:
        if self.away:
            raise StoreUnavailable("away")
        super().write_lists(lists)
        self.groups.append([each.user_id for each in lists])

        self.clock.pass_by(self.took_s)

    groups: list[list[str]]
    clock: Clock


class Desk:
    """A list writer with a small real model, a topic of items and Redis."""

    def __init__(self, connection: RedisConnection, *, versions: int = 1, **settings: Any) -> None:
        chosen = {"refresh_interval_ms": 0, "top_k": 10, "list_budget": 1.0, **settings}
        self.metrics, self.health, self.clock = ScorerMetrics(), Health("scorer"), Clock()
        self.redis = connection
        self.lists = Lists(connection, "t", recs_ttl_s=100, history_ttl_s=100)
        self.lists.groups, self.lists.clock = [], self.clock
        store = MemoryStore()
        self.trainer = Trainer(store)
        self.trainer.learn_much()
        self.reloader = Reloader(store, poll_s=1, device="cpu", metrics=self.metrics, health=self.health)
        for _ in range(versions):
            self.publish()
        self.log = MemoryLog()
        self.log.create("items", 1)
        self.blocked = BlockedItems(MemorySource(self.log), "items", DecodeRules())
        self.active = ActiveUsers(
            1000, Freshness(lambda stage, seconds: self.metrics.freshness.labels(stage).observe(seconds))
        )
        self.writer = ListWriter(
            self.active,
            self.reloader,
            self.blocked,
            self.lists,
            ScorerSettings(**chosen),
            metrics=self.metrics,
            health=self.health,
            clock=self.clock,
        )
        self.offset = 0

    def publish(self, *, learn: bool = False, **changes: Any) -> None:
        if learn:
            self.trainer.learn()
        self.trainer.publish(**changes)
        assert self.reloader.check()

    def act(self, user: str, item: str = "i1", type: str = "view", hide: str = "none") -> None:
        if user not in self.active:
            self.active.add(ActiveUser(user, b"", UserHistory()))
        event = Interaction(user_id=user, item_id=item, type=type, ts=NOW_MS)
        taken = PlacedEvent(event, HERE, self.offset, now_ms())
        self.active[user].history.take(*taken, rule=HistoryRule(20, DEFAULT_EVENT_WEIGHTS), hide=hide)
        self.active.acted(self.active[user], taken)
        self.offset += 1

    def delete(self, *items: str) -> None:
        for item in items:
            self.log.append("items", None, item.encode(), 0)
        self.blocked.poll()

    def take_away(self, *items: str) -> None:
        for item in items:
            self.log.append("items", item_json(item_id=item, available=False), item.encode(), 0)
        self.blocked.poll()

    def bring_back(self, item: str) -> None:
        self.log.append("items", item_json(item_id=item), item.encode(), 0)
        self.blocked.poll()

    def write(self, after_s: float = 0.1) -> None:
        """Until nobody needs a list, the first time with the budget of so many seconds."""
        self.clock.pass_by(after_s)
        self.writer.write()
        while self.writer.lists_wait:
            self.writer.write()

    def body(self, user: str) -> Any:
        return body_of(self.lists.read_list(user))

    def items(self, user: str) -> list[str]:
        return items_of(self.lists.read_list(user))

    def indexed(self) -> dict[str, set[str]]:
        keys = self.redis.call("KEYS", "t:listed:*")
        return {key.decode(): {user.decode() for user in self.redis.call("HKEYS", key)} for key in keys}

    def default(self) -> list[str]:
        return items_of(self.redis.call("GET", "t:recs_default"))

    def count(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"tidemill_{name}", labels)


@pytest.fixture
def desk(connection: RedisConnection) -> Desk:
    return Desk(connection)


def test_whoever_acted_gets_a_list_of_what_the_history_says(desk: Desk) -> None:
    desk.act("a", "i1")
    desk.act("b", "i2")
    desk.act("a", "i3")
    assert desk.writer.has_work
    desk.write()
    assert not desk.writer.has_work
    assert desk.lists.groups == [["a", "b"]]
    for user, seen in (("a", 2), ("b", 1)):
        body = desk.body(user)
        assert (body["user_id"], body["model_version"], body["events_seen"]) == (user, 1, seen)
        assert len(set(desk.items(user))) == 10
    assert desk.count("recommendations_written_total") == 2
    assert desk.count("score_seconds_count") == 1
    assert desk.count("event_to_recommendation_seconds_count", stage="history") == 3
    checks: Any = desk.health.report()[1]["checks"]
    assert checks["lists"] == "ok"


def test_a_list_is_in_the_index_of_each_partition_that_its_users_events_are_in(desk: Desk) -> None:
    """Whoever reads one of them may write the list, and is to sweep it."""
    desk.act("a")
    desk.act("b")
    desk.active["b"].history.next_offsets |= {THERE: 7, TopicPartition("another", 2): 7}
    desk.active.add(ActiveUser("c", b"", UserHistory()))  # whose history was damaged
    desk.write()
    assert desk.indexed() == {"t:listed:events:0": {"a", "b", "c"}, "t:listed:events:1": {"b"}}
    best = desk.items("a")[0]
    assert desk.lists.take_out(HERE, [("a", [best])]) == 1
    (_, [entry]) = next(desk.lists.index(THERE))
    assert Holders(desk.items("b")).among([entry])[0] == desk.items("b")


def test_newer_weights_are_pressing_and_rewrite_lists_and_what_they_have_learned_is_measured_once(desk: Desk) -> None:
    desk.act("a")
    desk.act("a")
    desk.write()
    desk.trainer.learn()
    desk.publish(through=1)
    assert desk.writer.has_work
    desk.write()
    assert (desk.body("a")["model_version"], desk.body("a")["trained_through"]) == (2, {"events": {"0": 1}})
    assert desk.count("event_to_recommendation_seconds_count", stage="learned") == 1
    desk.trainer.learn()
    desk.publish(through=2)
    desk.write()
    assert desk.count("event_to_recommendation_seconds_count", stage="learned") == 2
    assert desk.count("event_to_recommendation_seconds_count", stage="history") == 2


def test_without_weights_nothing_is_written_and_nobody_forgotten(connection: RedisConnection) -> None:
    desk = Desk(connection, versions=0)
    desk.act("a")
    desk.write()
    assert not desk.writer.has_work  # the loop may wait for events
    assert desk.lists.read_list("a") is None
    desk.publish()
    desk.write()
    assert desk.body("a")["events_seen"] == 1


def test_a_model_that_knows_no_items_leaves_lists_as_they_are(connection: RedisConnection) -> None:
    """As a scorer has it that starts while the live version is damaged, and only version 1 is whole."""
    desk = Desk(connection, versions=0)
    desk.trainer.learner = Learner(CONFIG)
    before = UserList("a", ["i1"], b'{"items": [{"item_id": "i1"}]}', [HERE])
    desk.lists.write_lists([before])
    desk.lists.write_default(before.raw)
    desk.publish()
    desk.act("a")
    desk.write(DEFAULT_LIST_EVERY_S)
    assert not desk.writer.has_work
    assert (desk.lists.read_list("a"), desk.lists.read_default()) == (before.raw, before.raw)
    desk.publish(learn=True)
    desk.write(DEFAULT_LIST_EVERY_S)
    assert desk.body("a")["model_version"] == 2
    assert len(desk.default()) == 10


def test_the_trending_list_is_written_once_a_while(desk: Desk) -> None:
    desk.write()
    body = body_of(desk.redis.call("GET", "t:recs_default"))
    assert (body["user_id"], body["model_version"], body["events_seen"], len(body["items"])) == ("", 1, 0, 10)
    desk.delete(body["items"][0]["item_id"])
    desk.write()
    assert body_of(desk.redis.call("GET", "t:recs_default")) == body
    desk.write(DEFAULT_LIST_EVERY_S)
    assert body_of(desk.redis.call("GET", "t:recs_default"))["items"][:9] == body["items"][1:]


def test_the_trending_list_comes_as_soon_as_there_is_something_to_list(desk: Desk) -> None:
    desk.delete(*ITEMS)
    desk.write()
    assert desk.default() == []
    sets = int(desk.redis.call("INFO", "commandstats")["cmdstat_set"]["calls"])
    desk.write()
    assert int(desk.redis.call("INFO", "commandstats")["cmdstat_set"]["calls"]) == sets
    desk.bring_back("i5")
    desk.write()
    assert desk.default() == ["i5"]


# -- what may be listed ------------------------------------------------------------------------------------------------


def test_blocked_items_are_not_listed_until_they_are_back(desk: Desk) -> None:
    desk.act("a")
    desk.write()
    best = desk.items("a")
    desk.delete(*best[:2])
    desk.act("a")
    desk.write()
    assert not set(best[:2]) & set(desk.items("a"))
    for item in best[:2]:
        desk.bring_back(item)
    desk.act("a")
    desk.write()  # of the same version
    assert desk.body("a")["model_version"] == 1
    assert set(best[:2]) <= set(desk.items("a"))


def test_what_the_model_knows_to_be_gone_is_not_listed(connection: RedisConnection) -> None:
    desk = Desk(connection, top_k=100)
    desk.trainer.learn(catalogue=(ItemChange("i0", deleted=True), ItemChange("i2", available=False)))
    desk.publish()
    desk.act("a")
    desk.write()
    assert not {"i0", "i2"} & set(desk.items("a"))


@pytest.mark.parametrize("why", ["deleted", "not available", "hidden"])
def test_when_nothing_is_left_to_list_the_list_is_empty(connection: RedisConnection, why: str) -> None:
    desk = Desk(connection, hide_seen="bought", top_k=100)
    desk.act("a")
    desk.write()
    assert len(desk.items("a")) == len(ITEMS)
    if why == "deleted":
        desk.delete(*ITEMS)
    elif why == "not available":
        desk.take_away(*ITEMS)
    else:
        for item in ITEMS:
            desk.act("a", item, "purchase", hide="bought")
    desk.act("a", hide="bought")
    for _ in range(3):
        desk.write(DEFAULT_LIST_EVERY_S)
    seen = 2 + (len(ITEMS) if why == "hidden" else 0)
    assert (desk.items("a"), desk.body("a")["events_seen"], desk.body("a")["model_version"]) == ([], seen, 1)
    assert 0 < desk.redis.call("TTL", "t:recs:a") <= 100
    assert (desk.default() == []) == (why != "hidden")
    assert desk.count("event_to_recommendation_seconds_count", stage="history") == seen
    assert desk.count("recommendations_written_total") == 2  # not again and again
    desk.act("b")
    desk.bring_back("i5") if why != "hidden" else desk.publish(learn=True)
    desk.write(DEFAULT_LIST_EVERY_S)
    assert desk.items("a") == ([] if why == "hidden" else ["i5"])  # with the next edition, without an event
    assert len(desk.items("b")) == (len(ITEMS) if why == "hidden" else 1)


def test_lists_are_filled_up_when_an_item_goes_and_take_it_in_again_when_it_is_back(desk: Desk) -> None:
    """Without a newer version: those of everybody who acted lately, and the one for everybody else."""
    desk.act("a")
    desk.act("b")
    desk.write()
    best = desk.items("a")
    for gone in (desk.take_away, desk.delete):
        gone(best[0])
        desk.write(DEFAULT_LIST_EVERY_S)
        for items in (desk.items("a"), desk.items("b"), desk.default()):
            assert len(items) == 10
            assert best[0] not in items
        desk.bring_back(best[0])
        desk.write(DEFAULT_LIST_EVERY_S)
        assert desk.items("a") == best
        assert desk.body("a")["model_version"] == 1


def test_what_a_user_dislikes_is_not_listed_for_them_until_they_want_it_again(connection: RedisConnection) -> None:
    desk = Desk(connection, top_k=100)
    for item, kind, gone in [("i2", "view", set()), ("i2", "dislike", {"i2"}), ("i3", "dislike", {"i2", "i3"}),
                             ("i2", "view", {"i3"})]:  # fmt: skip
        desk.act("a", item, kind)
        desk.act("b", "i2")
        desk.write()
        assert set(desk.items("b")) - set(desk.items("a")) == gone


@pytest.mark.parametrize(("hide", "gone"), [("none", []), ("bought", ["i3"]), ("all", ["i2", "i3"])])
def test_hide_seen(connection: RedisConnection, hide: str, gone: Sequence[str]) -> None:
    desk = Desk(connection, hide_seen=hide, top_k=100)
    desk.act("a", "i2", hide=hide)
    desk.act("a", "i3", "purchase", hide=hide)
    desk.act("b", "i4", "purchase", hide=hide)
    desk.write()
    assert desk.reloader.served is not None
    whole = {item for item in desk.reloader.served.recommender.ids if item}
    assert set(desk.items("a")) == whole - set(gone)
    assert set(desk.items("b")) == whole - ({"i4"} if gone else set())


# -- whose list, and when ----------------------------------------------------------------------------------------------


def test_beyond_the_budget_lists_wait_and_nobody_is_forgotten(
    connection: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GROUP", 1)
    desk = Desk(connection, list_budget=1e-9)
    desk.act("a")
    desk.act("b")
    desk.lists.took_s = 0.01
    desk.clock.pass_by(1)
    for _ in range(3):
        desk.writer.write()
        assert desk.writer.lists_wait
        assert desk.lists.groups == [["a"]]  # which has overdrawn it
    desk.clock.pass_by(1e9)
    desk.writer.write()
    assert not desk.writer.lists_wait
    assert desk.lists.groups == [["a"], ["b"]]


def test_every_other_group_at_rest_is_of_those_who_acted_last(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP", 1)
    for user in "abcdef":
        desk.act(user)
    desk.write()
    assert desk.lists.groups == [[user] for user in "abcdef"]
    desk.trainer.learn()
    desk.publish()
    desk.lists.groups.clear()
    desk.write(1.1 * LATEST_AGE_S)
    assert desk.lists.groups == [["a"], ["f"], ["b"], ["e"], ["c"], ["d"]]


def test_lists_younger_than_the_refresh_interval_stay(connection: RedisConnection) -> None:
    desk = Desk(connection, refresh_interval_ms=10_000)
    desk.act("a")
    desk.write()
    desk.trainer.learn()
    desk.publish()
    desk.write(5)
    assert desk.body("a")["model_version"] == 1
    desk.write(6)
    assert desk.body("a")["model_version"] == 2


def test_while_redis_is_away_nobody_is_forgotten(desk: Desk) -> None:
    desk.act("a")
    desk.act("b")
    desk.lists.away = True
    with pytest.raises(StoreUnavailable):
        desk.write()
    assert desk.active.due == 2
    assert desk.count("recommendations_written_total") == 0
    desk.lists.away = False
    desk.write()
    assert desk.lists.groups == [["a", "b"]]
    assert desk.count("event_to_recommendation_seconds_count", stage="history") == 2
