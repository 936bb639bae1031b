import json

import pytest

from consumers.events import DEFAULT_EVENT_WEIGHTS, Interaction
from consumers.records import TopicPartition
from model_store.errors import StoreUnavailable
from model_store.redis_connection import RedisConnection, connect
from service.model.history import HistoryRule
from service.scoring.list_store import ListStore, Saved
from service.scoring.user_history import UserHistory
from tests.redis_server import free_port

HERE = TopicPartition("events", 3)


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


def test_lists_are_written_with_a_time_to_live(lists: ListStore, connection: RedisConnection) -> None:
    lists.write_lists([("a", b"1"), ("b", b"2")])
    lists.write_lists([("a", b"3")])
    lists.write_lists([])
    assert (lists.read_list("a"), lists.read_list("b"), lists.read_list("c")) == (b"3", b"2", None)
    assert 0 < connection.call("TTL", "t:recs:a") <= 100
    lists.write_default(b"4")
    assert connection.call("GET", "t:recs_default") == b"4"
    assert connection.call("TTL", "t:recs_default") == -1


def test_all_lists_are_found_and_nothing_else(lists: ListStore, connection: RedisConnection) -> None:
    wanted = {f"t:recs:u{n}": json.dumps(n).encode() for n in range(1200)}
    lists.write_lists([(key.removeprefix("t:recs:"), raw) for key, raw in wanted.items()])
    lists.write_default(b"d")
    connection.call("SET", "other:recs:u", b"x")
    lists.save_histories([Saved("u", b"", lists.new_stamp(), history(1))])
    found = {key: raw for batch in lists.lists_at_rest(100) for key, raw in batch}
    assert found == {**wanted, "t:recs_default": b"d"}


def test_only_lists_that_are_as_before_are_replaced(lists: ListStore, connection: RedisConnection) -> None:
    lists.write_lists([("a", b"old"), ("b", b"newer")])
    changes = [("t:recs:a", b"old", b"less"), ("t:recs:b", b"old", b"less"), ("t:recs:gone", b"old", b"less")]
    assert lists.replace_lists(changes) == 1
    assert lists.replace_lists([]) == 0
    assert (lists.read_list("a"), lists.read_list("b"), lists.read_list("gone")) == (b"less", b"newer", None)
    assert 0 < connection.call("TTL", "t:recs:a") <= 100


def test_who_acted_lately(lists: ListStore, connection: RedisConnection) -> None:
    lists.note_active(HERE, [("a", 10), ("b", 30), ("c", 20)])
    lists.note_active(HERE, [("b", 5), ("a", 40)])  # older news changes nothing
    assert lists.recently_active(HERE, 20, 9) == ["a", "b", "c"]
    assert lists.recently_active(HERE, 20, 2) == ["a", "b"]
    assert lists.recently_active(HERE, 21, 9) == ["a", "b"]
    assert lists.recently_active(HERE, 0, 9) == ["a", "b"]  # c was cleared away
    assert lists.recently_active(TopicPartition("events", 4), 0, 9) == []
    assert 0 < connection.call("TTL", "t:active:events:3") <= 200


def test_redis_away_is_said_so() -> None:
    lists = store(connect(f"redis://127.0.0.1:{free_port()}/0", retries=0))
    for call in (
        lambda: lists.histories(["u"]),
        lambda: lists.save_histories([Saved("u", b"", b"0" * 16, history(1))]),
        lambda: lists.write_lists([("u", b"1")]),
        lambda: next(lists.lists_at_rest()),
        lambda: lists.recently_active(HERE, 0, 1),
    ):
        with pytest.raises(StoreUnavailable):
            call()
