from collections.abc import Sequence
from typing import Any

import pytest

from consumers.records import Record, TopicPartition
from model_store.errors import StoreUnavailable
from model_store.redis_connection import RedisConnection
from service.health import Health
from service.metrics import ScorerMetrics
from service.model.config import HistoryConfig
from service.scoring import histories as module
from service.scoring.active_users import ActiveUsers
from service.scoring.histories import Histories
from service.scoring.list_store import ListStore, Saved, Stored
from service.scoring.live_rule import LiveRule
from service.settings import ScorerSettings
from tests.consumers.samples import NOW_MS, event_json
from tests.service.scoring.workers import go_back, in_redis

HERE, THERE = TopicPartition("events", 0), TopicPartition("events", 1)


class Flaky(ListStore):
    """Redis is away when told; or just after histories were saved."""

    away = away_after_saving = False

    def histories(self, user_ids: Sequence[str]) -> dict[str, Stored]:
        self._here()
        return super().histories(user_ids)

    def save_histories(self, saves: Sequence[Saved]) -> list[bool]:
        self._here()
        stored = super().save_histories(saves)
        self.away = self.away_after_saving
        return stored

    def note_active(self, where: TopicPartition, users: Sequence[tuple[str, int]], since_ms: int) -> None:
        self._here()
        super().note_active(where, users, since_ms)

    def _here(self) -> None:
        if self.away:
            raise StoreUnavailable("away")


class Keeper:
    """One scorer's histories."""

    def __init__(self, connection: RedisConnection, **settings: Any) -> None:
        self.lists = Flaky(connection, "t", recs_ttl_s=100, history_ttl_s=100)
        self.metrics, self.now_ms = ScorerMetrics(), NOW_MS
        self.live: HistoryConfig | None = None  # of the live version
        chosen = ScorerSettings(**settings)
        self.active = ActiveUsers(chosen.max_active_users)
        rule = LiveRule(chosen, Health("scorer"), lambda: self.live)
        self.histories = Histories(self.lists, self.active, rule, chosen, self.metrics, clock=lambda: self.now_ms)

    def take(self, *records: Record) -> None:
        self.histories.take(records)

    def take_and_save(self, *records: Record) -> None:
        self.take(*records)
        self.histories.save()

    def stored(self, user: str) -> tuple[int, list[str]]:
        """How many events, and the items."""
        history = self.lists.histories([user])[user].history
        return history.events_seen, history.items

    def count(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"tidemill_{name}", labels)


@pytest.fixture
def keeper(connection: RedisConnection) -> Keeper:
    return Keeper(connection)


def event(user: str, offset: int, where: TopicPartition = HERE, ms: int = NOW_MS, **fields: Any) -> Record:
    """An event on `i<offset>`."""
    value = event_json(user_id=user, **{"item_id": f"i{offset}", **fields})
    return Record(where.topic, where.partition, offset, ms, user.encode(), value)


def test_events_are_taken_in_once_each(keeper: Keeper) -> None:
    assert keeper.histories.saved
    window = [
        event("a", 0, event_id="e1"),
        event("a", 1, event_id="e1"),  # sent twice
        event("b", 2),
        event("a", 3)._replace(key=b"other"),
        event("a", 4)._replace(value=b"junk"),
        event("a", 5, type="purchase"),
    ]
    keeper.take(*window)
    assert not keeper.histories.saved
    keeper.take(*window)  # read again
    assert (keeper.active["a"].history.events_seen, keeper.active["b"].history.events_seen) == (3, 1)
    assert keeper.active.due == 2
    assert keeper.count("events_consumed_total", type="view") == 4
    assert keeper.count("events_consumed_total", type="purchase") == 1
    assert keeper.count("events_duplicate_total") == 1
    assert keeper.count("events_misrouted_total") == 1
    assert keeper.stored("a") == (0, [])
    keeper.histories.save()
    assert keeper.histories.saved
    assert (keeper.stored("a"), keeper.stored("b")) == ((3, ["i0", "i3", "i5"]), (1, ["i2"]))


def test_what_does_not_fit_is_counted_and_touches_nobody(keeper: Keeper) -> None:
    keeper.take(event("a", 0)._replace(value=b"junk"), event("a", 1, ts=NOW_MS + 48 * 3_600_000))
    assert keeper.count("events_rejected_total", reason="not_json") == 1
    assert keeper.count("events_rejected_total", reason="ts_in_future") == 1
    assert keeper.histories.saved
    assert len(keeper.active) == 0


@pytest.mark.parametrize("ahead_ms", [0, 3_600_000, 10**15])
def test_a_producer_s_clock_that_is_ahead_keeps_nobody_active(keeper: Keeper, ahead_ms: int) -> None:
    """Nor those who have acted since: who is quiet is looked for from whoever has been quiet longest."""
    keeper.take_and_save(event("a", 0, ms=NOW_MS + ahead_ms))
    keeper.take_and_save(event("b", 1))
    for user in "ab":
        keeper.active.written(keeper.active[user], (1, 0), 0.0, NOW_MS, empty=False)
    keeper.now_ms += 1_000 * 1_800 + 1
    keeper.histories.forget_quiet()
    assert len(keeper.active) == 0
    assert keeper.lists.recently_active(HERE, keeper.now_ms, 10) == []


def test_an_event_of_a_type_that_a_newer_version_does_not_accept_still_counts_after_a_conflict(
    keeper: Keeper, connection: RedisConnection
) -> None:
    keeper.live = HistoryConfig(event_weights={"view": 1.0, "watch": 1.0})
    keeper.take_and_save(event("a", 0))
    other = Keeper(connection)
    other.take_and_save(event("a", 0), event("a", 1, THERE))  # a slower scorer, with an event of its own
    keeper.take(event("a", 2, type="watch"))
    keeper.live = HistoryConfig(event_weights={"view": 1.0})
    keeper.take(event("b", 3))
    keeper.histories.save()
    assert keeper.stored("a") == (3, ["i0", "i1"])


def test_the_settings_say_what_a_history_holds(connection: RedisConnection) -> None:
    keeper = Keeper(
        connection, history_length=2, hide_seen="bought", event_weights={"view": 1.0, "purchase": 2.0, "like": 0.0}
    )
    kinds = ("purchase", "view", "like", "view")
    keeper.take(*(event("a", offset, type=kind) for offset, kind in enumerate(kinds)))
    history = keeper.active["a"].history
    assert (history.events_seen, history.items, history.hidden) == (4, ["i1", "i3"], ["i0"])


def test_a_live_version_says_what_a_history_holds_whatever_the_settings(keeper: Keeper) -> None:
    keeper.take(*(event("a", offset) for offset in range(3)), event("a", 3, type="watch"))
    assert keeper.active["a"].history.items == ["i0", "i1", "i2"]  # its own settings serve until there is a version
    keeper.live = HistoryConfig(length=2, event_weights={"watch": 1.0, "view": 0.0})
    keeper.take(event("a", 4, type="watch"), event("a", 5), event("a", 6, type="purchase"))
    history = keeper.active["a"].history
    assert (history.events_seen, history.items) == (5, ["i2", "i4"])
    assert keeper.count("events_rejected_total", reason="unknown_type") == 2
    keeper.live = HistoryConfig(length=4, event_weights={"view": 1.0})  # of a model that was begun anew
    keeper.take(*(event("a", offset) for offset in range(7, 12)))
    assert keeper.active["a"].history.items == ["i8", "i9", "i10", "i11"]


def test_who_is_saved_is_known_as_active_to_whoever_takes_over(keeper: Keeper) -> None:
    keeper.take(event("a", 0))
    keeper.lists.away_after_saving = True
    with pytest.raises(StoreUnavailable):
        keeper.histories.save()
    keeper.lists.away_after_saving = keeper.lists.away = False
    assert not keeper.histories.saved
    keeper.histories.save()
    assert keeper.lists.recently_active(HERE, 0, 10) == ["a"]
    assert keeper.stored("a")[0] == 1
    assert keeper.count("history_conflicts_total") == 0


def test_who_has_been_quiet_is_not_known_as_active_any_more(connection: RedisConnection) -> None:
    """As others act, and not only when somebody takes over: else everybody who ever came would be kept."""
    keeper = Keeper(connection, active_seconds=60)
    keeper.take_and_save(event("a", 0), event("b", 0, THERE))
    keeper.now_ms += 61_000
    keeper.take_and_save(event("c", 1, ms=keeper.now_ms))
    assert connection.call("ZRANGE", "t:active:events:0", 0, -1) == [b"c"]


def test_a_conflict_is_counted_once_however_often_it_is_looked_into(
    keeper: Keeper, connection: RedisConnection
) -> None:
    keeper.take_and_save(event("a", 0))
    Keeper(connection).take_and_save(event("a", 0, THERE))
    keeper.take(event("a", 1))
    keeper.lists.away_after_saving = True
    with pytest.raises(StoreUnavailable):
        keeper.histories.save()
    keeper.lists.away_after_saving = keeper.lists.away = False
    keeper.histories.save()
    assert keeper.stored("a")[0] == 3
    assert keeper.count("history_conflicts_total") == 1


def test_whose_events_are_in_two_partitions_is_read_anew_when_one_is_taken_over(
    keeper: Keeper, connection: RedisConnection
) -> None:
    other = Keeper(connection)
    other.take_and_save(event("a", 0, THERE))
    keeper.take_and_save(event("a", 0))  # continues what the other one stored
    other.take_and_save(event("a", 1, THERE))
    other.histories.lose([THERE])
    keeper.histories.take_over([THERE])
    keeper.take_and_save(event("a", 2, THERE))
    assert keeper.stored("a")[0] == 4
    assert keeper.active["a"].history.events_seen == 4


def test_while_redis_is_away_nothing_is_lost_nor_counted_twice(keeper: Keeper) -> None:
    keeper.lists.away = True
    with pytest.raises(StoreUnavailable):
        keeper.take(event("a", 0))
    keeper.lists.away = False
    keeper.take(event("a", 0))
    keeper.lists.away = True
    with pytest.raises(StoreUnavailable):
        keeper.histories.save()
    keeper.take(event("a", 1))  # a user who is in memory needs no Redis
    assert not keeper.histories.saved
    keeper.lists.away = False
    keeper.histories.save()
    assert keeper.stored("a") == (2, ["i0", "i1"])
    assert keeper.count("events_consumed_total", type="view") == 2


def test_many_are_stored_a_portion_at_a_time(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAVE_AT_ONCE", 3)
    keeper.take_and_save(*(event(f"u{offset}", offset) for offset in range(10)))
    assert [keeper.stored(f"u{offset}")[0] for offset in range(10)] == [1] * 10


# -- two scorers -------------------------------------------------------------------------------------------------------


def test_what_another_scorer_has_changed_is_read_again_and_continued(connection: RedisConnection) -> None:
    first, second = Keeper(connection), Keeper(connection)
    first.take_and_save(event("a", 0), event("b", 1))
    second.take_and_save(event("a", 9, THERE))
    first.take_and_save(event("a", 2), event("b", 3))
    assert first.stored("a") == (3, ["i0", "i9", "i2"])
    assert first.stored("b") == (2, ["i1", "i3"])
    assert first.count("history_conflicts_total") == 1
    assert first.count("histories_restored_total") == 0
    assert first.active["a"].history == first.lists.histories(["a"])["a"].history


def test_of_two_that_read_the_same_the_one_that_read_more_wins(connection: RedisConnection) -> None:
    first, second = Keeper(connection), Keeper(connection)
    first.take_and_save(event("a", 0))
    second.take_and_save(event("a", 0), event("a", 1))
    first.take_and_save(event("a", 1), event("a", 2))
    assert first.stored("a") == (3, ["i0", "i1", "i2"])
    assert first.count("histories_restored_total") == 1


def test_a_slower_scorer_undoes_nothing(connection: RedisConnection) -> None:
    slow, quick = Keeper(connection), Keeper(connection)
    slow.take(event("a", 0))
    quick.take_and_save(event("a", 0), event("a", 1))
    slow.histories.save()
    assert slow.stored("a") == (2, ["i0", "i1"])


def test_who_acted_lately_is_loaded_a_few_at_a_time_the_latest_first(
    connection: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOAD_AT_ONCE", 2)
    first = Keeper(connection)
    first.now_ms = NOW_MS + 6000
    for offset, name in enumerate(["quiet", "a", "b", "c"]):
        first.take_and_save(event(name, offset, ms=NOW_MS + 1000 * offset))
    first.take_and_save(event("there", 0, THERE, ms=NOW_MS + 5000))
    second = Keeper(connection, active_seconds=5)
    second.now_ms = NOW_MS + 6000
    second.histories.take_over([HERE, THERE])
    loaded = []
    for _ in range(4):
        second.histories.load_newcomers()
        loaded.append([name for name in ("quiet", "a", "b", "c", "there") if name in second.active])
    assert loaded == [["b", "c"], ["a", "b", "c"], ["a", "b", "c", "there"], ["a", "b", "c", "there"]]
    assert second.active["c"].history.items == ["i3"]
    assert second.histories.saved


def test_of_lost_partitions_nobody_is_loaded_or_stored(connection: RedisConnection) -> None:
    Keeper(connection).take_and_save(event("a", 0), event("b", 0, THERE))
    keeper = Keeper(connection)
    keeper.histories.take_over([HERE, THERE])
    keeper.take(event("c", 1), event("d", 1, THERE))
    keeper.histories.lose([HERE])
    for _ in range(3):
        keeper.histories.load_newcomers()
    keeper.histories.save()
    assert [name in keeper.active for name in "abcd"] == [False, True, False, True]
    assert [keeper.stored(name)[0] for name in "cd"] == [0, 1]


def test_who_is_quiet_is_forgotten_and_comes_back_from_redis(connection: RedisConnection) -> None:
    keeper = Keeper(connection, active_seconds=60)
    keeper.take_and_save(event("a", 0))
    for user in keeper.active.next_group(1, (1, 0), 0.0):
        keeper.active.written(user, (1, 0), 0.0, NOW_MS)
    keeper.histories.forget_quiet()
    assert "a" in keeper.active
    keeper.now_ms += 61_000
    keeper.histories.forget_quiet()
    assert "a" not in keeper.active
    keeper.take(event("a", 1))
    assert keeper.active["a"].history.items == ["i0", "i1"]


# -- a Redis that goes back in time ------------------------------------------------------------------------------------


@pytest.mark.parametrize("everything", [False, True])
def test_what_redis_has_lost_is_stored_again(keeper: Keeper, connection: RedisConnection, everything: bool) -> None:
    keeper.take_and_save(event("a", 0), event("b", 1), event("c", 2))
    then = {} if everything else in_redis(connection)
    keeper.take_and_save(event("a", 3), event("b", 4))
    for user in keeper.active.next_group(9, (1, 0), 0.0):
        keeper.active.written(user, (1, 0), 0.0, NOW_MS)
    keeper.histories.restore()
    assert keeper.count("histories_restored_total") == keeper.active.due == 0  # nothing was lost
    go_back(connection, then)
    keeper.histories.restore()
    assert keeper.histories.saved
    assert [keeper.stored(name)[0] for name in "abc"] == [2, 2, 1]
    assert keeper.count("histories_restored_total") == keeper.active.due == (3 if everything else 2)


def test_an_event_that_meets_a_lost_history_continues_what_is_in_memory(
    keeper: Keeper, connection: RedisConnection
) -> None:
    keeper.take_and_save(event("a", 0))
    then = in_redis(connection)
    for offset in (1, 2):
        keeper.take_and_save(event("a", offset))
    go_back(connection, then)
    keeper.take_and_save(event("a", 3))
    assert keeper.stored("a") == (4, ["i0", "i1", "i2", "i3"])


def test_what_was_lost_is_stored_before_anybody_is_forgotten(connection: RedisConnection) -> None:
    keeper = Keeper(connection, max_active_users=1)
    keeper.take_and_save(event("a", 0), event("b", 1))
    connection.call("FLUSHALL")
    keeper.lists.away = True
    with pytest.raises(StoreUnavailable):
        keeper.histories.restore()
    keeper.lists.away = False
    keeper.histories.save()
    keeper.histories.forget_quiet()
    keeper.take_and_save(event("a", 2))
    assert keeper.stored("a") == (2, ["i0", "i2"])
    connection.call("FLUSHALL")
    keeper.histories.restore()
    keeper.histories.forget_quiet()
    assert len(keeper.active) == 1
    assert keeper.stored("a") == (2, ["i0", "i2"])
