import json
import time
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumers.events import DEFAULT_EVENT_WEIGHTS, Interaction
from consumers.records import TopicPartition
from model_store.errors import StoreUnavailable
from model_store.redis_connection import Command, RedisConnection, connect
from service.model.history import HistoryRule
from service.scoring.list_index import Holders
from service.scoring.list_store import ListStore, Saved, UserList
from service.scoring.recommendations import items_in, list_json
from service.scoring.user_history import UserHistory
from tests.consumers.samples import ids
from tests.redis_server import free_port

HERE, THERE = TopicPartition("events", 3), TopicPartition("events", 4)


@pytest.fixture
def lists(connection: RedisConnection) -> ListStore:
    return store(connection)


def store(connection: RedisConnection) -> ListStore:
    return ListStore(connection, "t", recs_ttl_s=100, history_ttl_s=200)


def history(count: int) -> UserHistory:
    found = UserHistory()
    for offset in range(count):
        event = Interaction(user_id="u", item_id=f"i{offset}", type="view", ts=1)
        found.take(event, HERE, offset, 7, rule=HistoryRule(20, DEFAULT_EVENT_WEIGHTS), hide="all")
    return found


def test_who_is_not_known_has_an_empty_history(lists: ListStore) -> None:
    assert lists.histories(["nobody"]) == {"nobody": (b"", UserHistory())}
    assert lists.histories([]) == {}


def test_histories_come_back_as_they_were(lists: ListStore, connection: RedisConnection) -> None:
    stamp = lists.new_stamp()
    assert lists.save_histories([Saved("é b", b"", stamp, history(3))]) == [True]
    assert lists.histories(["é b"]) == {"é b": (stamp, history(3))}
    assert 0 < connection.call("TTL", lists.history_key("é b")) <= 200


def test_a_save_over_what_another_wrote_is_refused(lists: ListStore, connection: RedisConnection) -> None:
    other = store(connection)
    first, second = lists.new_stamp(), other.new_stamp()
    assert first != second
    assert lists.save_histories([Saved("u", b"", first, history(1))]) == [True]
    assert other.save_histories([Saved("u", first, second, history(2))]) == [True]
    stale = Saved("u", first, lists.new_stamp(), history(9))
    new = Saved("u", b"", lists.new_stamp(), history(9))
    assert lists.save_histories([stale, new, Saved("v", b"", first, history(1))]) == [False, False, True]
    assert lists.histories(["u"])["u"] == (second, history(2))


def test_what_redis_lost_is_noticed_once_by_the_writers_mark(lists: ListStore, connection: RedisConnection) -> None:
    assert lists.lost() is None  # nothing written yet
    early, late = lists.new_stamp(), lists.new_stamp()
    lists.save_histories([Saved("u", b"", early, history(1))])
    (mark,) = connection.call("KEYS", "t:scorer:*")
    assert 0 < connection.call("TTL", mark) <= 3600
    connection.call("SET", mark, 1)
    assert lists.lost() is not None  # the second stamp was given out before the first was saved
    assert lists.lost() is None
    lists.save_histories([Saved("v", b"", late, history(1))])
    assert lists.lost() is None
    connection.call("SET", mark, 1)
    lost = lists.lost()
    assert lost is not None
    assert (lost(early), lost(late), lost(b"0" * 16), lost(b"")) == (False, True, False, False)
    lists.save_histories([Saved("w", b"", lists.new_stamp(), history(1))])
    connection.call("FLUSHALL")
    lost = lists.lost()
    assert lost is not None
    assert (lost(early), lost(b"0" * 16), lost(b"")) == (True, True, False)


def test_a_history_that_vanished_is_not_brought_back_unread(lists: ListStore) -> None:
    assert lists.save_histories([Saved("u", b"0" * 16, lists.new_stamp(), history(1))]) == [False]


@pytest.mark.parametrize("raw", [b"junk", b'{"stamp":"0123456789abcdef","items":1}', b"x" * 100, b""])
def test_a_damaged_history_begins_anew_and_can_be_replaced(
    lists: ListStore, connection: RedisConnection, raw: bytes
) -> None:
    connection.call("SET", lists.history_key("u"), raw)
    stamp, found = lists.histories(["u"])["u"]
    assert found == UserHistory()
    assert lists.save_histories([Saved("u", stamp, lists.new_stamp(), history(1))]) == [True]
    assert lists.histories(["u"])["u"].history == history(1)


def of(user: str, *items: str, where: TopicPartition = HERE) -> UserList:
    ranked = [(item, -float(n)) for n, item in enumerate(items)]
    raw = list_json(user, ranked, model_version=1, trained_through={}, events_seen=1, generated_at="")
    return UserList(user, list(items), raw, [where])


def test_lists_are_written_with_a_time_to_live(lists: ListStore, connection: RedisConnection) -> None:
    lists.write_lists([UserList("a", [], b"1", [HERE]), UserList("b", [], b"2", [HERE])])
    lists.write_lists([UserList("a", [], b"3", [HERE])])
    lists.write_lists([])
    assert (lists.read_list("a"), lists.read_list("b"), lists.read_list("c")) == (b"3", b"2", None)
    assert 0 < connection.call("TTL", "t:recs:a") <= 100
    assert lists.read_default() is None
    lists.write_default(b"4")
    assert lists.read_default() == connection.call("GET", "t:recs_default") == b"4"
    assert connection.call("TTL", "t:recs_default") == -1


def test_the_index_has_an_entry_of_each_list_by_partition(lists: ListStore, connection: RedisConnection) -> None:
    lists.write_lists([of(f"u{n}", "x", where=THERE if n % 3 else HERE) for n in range(3000)])
    lists.write_lists([of("u0", "y"), of("é b", *"xyz")])
    found = dict(pair for users, entries in lists.index(HERE) for pair in zip(users, entries, strict=True))
    assert set(found) == {f"u{n}" for n in range(0, 3000, 3)} | {"é b"}
    entry = found["é b"]
    assert Holders("x").among([found["u3"], found["u0"], entry]) == {0: ["x"], 2: ["x"]}
    assert 99 <= int.from_bytes(entry[:4], "little") - time.time() <= 101
    assert 0 < connection.call("TTL", "t:listed:events:3") <= 100
    assert sum(len(users) for users, _ in lists.index(THERE)) == 2000
    assert [len(users) for users, _ in lists.index(TopicPartition("events", 9))] == [0]
    lists.drop_entries(HERE, [("u0", b"another"), *((user, found[user]) for user in found if user != "u0")])
    assert [users for users, _ in lists.index(HERE)] == [["u0"]]
    lists.drop_entries(HERE, [])


some_items = st.lists(ids, unique=True, max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids, some_items, st.data())
def test_items_leave_lists_and_nothing_else_changes(
    lists: ListStore, connection: RedisConnection, user: str, items: list[str], data: st.DataObject
) -> None:
    before = of(user, *items)
    lists.write_lists([before])
    kept, rest = list(items), json.loads(before.raw)
    for gone in data.draw(st.lists(st.lists(ids | st.sampled_from([*items, "x"]), max_size=3), max_size=4)):
        assert lists.take_out(HERE, [(user, gone)]) == bool(set(gone) & set(kept))
        kept = [item for item in kept if item not in gone]
        raw = lists.read_list(user)
        assert raw is not None
        assert len(raw) == len(before.raw)
        assert json.loads(raw) == rest | {"items": [entry for entry in rest["items"] if entry["item_id"] in kept]}
    assert 0 < connection.call("TTL", lists.recs_key(user)) <= 100


def test_items_leave_only_lists_that_hold_them(lists: ListStore) -> None:
    lists.write_lists([of(f"u{n}", "x", "y" if n % 2 else "z") for n in range(500)])
    lists.write_lists([UserList("junk", [], b'no {"item_id":"x", list', [HERE])])
    lists.write_default(of("", "x", "y").raw)
    users = [*(f"u{n}" for n in range(500)), "junk", "nobody"]
    assert lists.take_out(HERE, [(user, ["y"]) for user in users]) == 250
    assert lists.take_out(HERE, [(user, ["y"]) for user in users]) == 0
    assert lists.take_out(HERE, []) == 0
    assert lists.read_list("junk") == b'no {"item_id":"x", list'
    assert lists.read_list("nobody") is None
    assert lists.take_out_of_default(["z", "x", "y"]) == 1
    assert items_in(lists.read_default() or b"") == []


def test_who_acted_lately(lists: ListStore, connection: RedisConnection) -> None:
    lists.note_active(HERE, [("a", 10), ("b", 30), ("c", 20)], 0)
    lists.note_active(HERE, [("b", 5), ("a", 40)], 10)  # older news changes nothing
    assert lists.recently_active(HERE, 20, 9) == ["a", "b", "c"]
    assert lists.recently_active(HERE, 20, 2) == ["a", "b"]
    assert lists.recently_active(HERE, 21, 9) == ["a", "b"]
    assert lists.recently_active(HERE, 0, 9) == ["a", "b"]  # c was cleared away
    assert lists.recently_active(TopicPartition("events", 4), 0, 9) == []
    assert 0 < connection.call("TTL", "t:active:events:3") <= 200


def test_who_has_been_quiet_is_left_out_as_others_act(lists: ListStore, connection: RedisConnection) -> None:
    for at in range(100):
        lists.note_active(HERE, [(f"u{at}", at)], at - 9)
    assert connection.call("ZCARD", "t:active:events:3") == 10


OF_ONE_KEY = {"EXPIRE", "GET", "GETEX", "HSCAN", "HSET", "SET", "ZADD", "ZRANGE", "ZREMRANGEBYSCORE"}


def test_every_command_touches_one_key(connection: RedisConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a Redis Cluster, two keys lie on two servers."""
    sent: list[Command] = []
    pipeline = RedisConnection.pipeline

    def noted(connection: RedisConnection, commands: Sequence[Command]) -> list[object]:
        sent.extend(commands)
        return pipeline(connection, commands)

    monkeypatch.setattr(RedisConnection, "pipeline", noted)
    lists = store(connection)
    lists.save_histories([Saved(user, b"", lists.new_stamp(), history(1)) for user in "ab"])
    lists.histories(["a", "b"])
    lists.lost()
    lists.write_lists([of("a", "x"), of("b", "x", where=THERE)])
    lists.write_default(b"1")
    for where in (HERE, THERE):
        for users, entries in lists.index(where):
            lists.take_out(where, [(user, ["x"]) for user in users])
            lists.drop_entries(where, list(zip(users, entries, strict=True)))
        lists.note_active(where, [("a", 1), ("b", 2)], 0)
        lists.recently_active(where, 0, 9)
    lists.read_list("a")
    lists.read_default()
    lists.take_out_of_default(["x"])
    assert len(sent) > 20
    assert {command[0] for command in sent if command[0] != "EVALSHA"} == OF_ONE_KEY
    assert all(command[2] == 1 for command in sent if command[0] == "EVALSHA")


def test_redis_away_is_said_so() -> None:
    lists = store(connect(f"redis://127.0.0.1:{free_port()}/0", retries=0))
    for call in (
        lambda: lists.histories(["u"]),
        lambda: lists.save_histories([Saved("u", b"", b"0" * 16, history(1))]),
        lambda: lists.write_lists([of("u", "x")]),
        lambda: next(lists.index(HERE)),
        lambda: lists.take_out(HERE, [("u", ["x"])]),
        lambda: lists.recently_active(HERE, 0, 1),
    ):
        with pytest.raises(StoreUnavailable):
            call()
