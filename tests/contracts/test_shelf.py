"""What a shelf of refused letters promises, of each there is."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumers.letters import DeadLetter, Refused
from consumers.shelf import LETTER_BYTES, MemoryShelf, Shelf, ShelfAway
from model_store.redis_connection import RedisConnection, connect
from service.redis_shelf import RedisShelf
from tests.consumers.samples import refusals

CAPACITY = 5
MakeShelf = Callable[[], Shelf]


@pytest.fixture(params=["memory", "redis"])
def make_shelf(request: pytest.FixtureRequest) -> MakeShelf:
    """Makes one that is empty."""
    if request.param == "memory":
        return lambda: MemoryShelf(CAPACITY)
    connection: RedisConnection = request.getfixturevalue("connection")

    def in_redis() -> Shelf:
        connection.call("FLUSHALL")
        return RedisShelf(connection, "shop", CAPACITY)

    return in_redis


def refused(value: bytes | None, topic: str = "events") -> Refused:
    headers = (("own", b"h"), ("error.code", b"not_json"))
    return Refused(DeadLetter(topic, b"k", value, headers, 1), "no key")


def values(shelf: Shelf, topic: str = "events") -> list[bytes | None]:
    return [kept.letter.value for _, kept in shelf.page(topic, 1000)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(letters=st.lists(refusals(), max_size=CAPACITY))
def test_what_was_put_is_there_in_order(make_shelf: MakeShelf, letters: list[Refused]) -> None:
    shelf = make_shelf()
    assert [shelf.put(letter) for letter in letters] == [0] * len(letters)
    for topic in {letter.letter.topic for letter in letters}:
        mine = [letter for letter in letters if letter.letter.topic == topic]
        assert [kept for _, kept in shelf.page(topic, 1000)] == mine
        assert shelf.count(topic) == len(mine)


def test_a_topic_without_letters_is_empty(make_shelf: MakeShelf) -> None:
    shelf = make_shelf()
    assert shelf.count("events") == 0
    assert list(shelf.page("events", 10)) == []
    shelf.remove("events", [])


def test_pages_follow_one_another_also_when_what_they_held_is_gone(make_shelf: MakeShelf) -> None:
    shelf = make_shelf()
    for n in range(5):
        shelf.put(refused(b"%d" % n))
    first = shelf.page("events", 2)
    shelf.remove("events", [name for name, _ in first])
    second = shelf.page("events", 2, after=first[-1][0])
    third = shelf.page("events", 2, after=second[-1][0])
    assert [kept.letter.value for _, kept in [*first, *second, *third]] == [b"0", b"1", b"2", b"3", b"4"]
    assert list(shelf.page("events", 2, after=third[-1][0])) == []


def test_only_what_is_named_is_removed_and_twice_is_no_error(make_shelf: MakeShelf) -> None:
    shelf = make_shelf()
    for value in (b"a", b"b", b"c"):
        shelf.put(refused(value))
    shelf.put(refused(b"other", "items"))
    name = shelf.page("events", 2)[1][0]
    for _ in range(2):
        shelf.remove("events", [name])
    assert values(shelf) == [b"a", b"c"]
    assert values(shelf, "items") == [b"other"]


def test_the_oldest_make_room_and_it_is_said(make_shelf: MakeShelf) -> None:
    shelf = make_shelf()
    gone = [shelf.put(refused(b"%d" % n)) for n in range(CAPACITY + 3)]
    shelf.put(refused(b"other", "items"))
    assert gone == [0] * CAPACITY + [1] * 3
    assert values(shelf) == [b"%d" % n for n in range(3, CAPACITY + 3)]


@pytest.mark.parametrize("size", [LETTER_BYTES, LETTER_BYTES + 1, 1_000_000])
def test_a_large_value_is_cut_and_says_so(make_shelf: MakeShelf, size: int) -> None:
    shelf = make_shelf()
    shelf.put(refused(b"x" * size))
    ((_, kept),) = shelf.page("events", 1)
    assert kept.letter.value == b"x" * min(size, LETTER_BYTES)
    assert (kept.letter.headers[-1][0] == "error.value_truncated_from") == (size > LETTER_BYTES)
    assert kept.letter.key == b"k"


def test_a_large_key_or_header_of_the_records_own_is_left_out(make_shelf: MakeShelf) -> None:
    shelf = make_shelf()
    ours = (("error.code", b"not_json"),)
    shelf.put(Refused(DeadLetter("events", b"k" * 20_000, b"v", ours), "why"))
    shelf.put(Refused(DeadLetter("events", b"k", b"v", (("own", b"h" * 20_000), *ours), 1), "why"))
    assert [kept.letter for _, kept in shelf.page("events", 2)] == [DeadLetter("events", None, b"v", ours)] * 2


def test_one_that_is_away_says_so() -> None:
    shelf = RedisShelf(connect("redis://127.0.0.1:1/0", timeout=0.2, retries=0), "shop")
    for ask in (
        lambda: shelf.put(refused(b"a")),
        lambda: shelf.page("events", 1),
        lambda: shelf.remove("events", ["1-1"]),
        lambda: shelf.count("events"),
    ):
        with pytest.raises(ShelfAway):
            ask()


def test_where_letters_lie_in_redis(connection: RedisConnection) -> None:
    RedisShelf(connection, "shop").put(refused(b"a"))
    ((_, fields),) = connection.call("XRANGE", "shop:dead:events", "-", "+")
    assert fields == {b"letter": refused(b"a").to_json()}
