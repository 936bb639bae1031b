import pytest

from consumers.decode import DecodeRules
from consumers.memory_source import MemoryLog, MemorySource
from service.scoring.blocked_items import BlockedItems
from tests.consumers.samples import item_json


@pytest.fixture
def log() -> MemoryLog:
    log = MemoryLog()
    log.create("items", 1)
    return log


def blocked_items(log: MemoryLog) -> BlockedItems:
    return BlockedItems(MemorySource(log), "items", DecodeRules())


def put(log: MemoryLog, item: str, value: bytes | None) -> None:
    log.append("items", value, item.encode())


def test_deleted_and_unavailable_items_are_blocked_until_they_are_back(log: MemoryLog) -> None:
    found = blocked_items(log)
    put(log, "a", None)
    put(log, "b", item_json(item_id="b", available=False))
    put(log, "c", item_json(item_id="c"))
    assert found.poll() == {"a", "b"}
    assert (found.ids, found.changes) == ({"a", "b"}, 2)
    put(log, "a", item_json(item_id="a"))
    assert found.poll() == set()
    assert (found.ids, found.changes) == ({"b"}, 3)
    put(log, "b", None)  # was blocked before
    assert found.poll() == {"b"}
    assert (found.ids, found.changes) == ({"b"}, 3)
    assert found.poll() == set()


def test_the_last_word_of_a_poll_counts(log: MemoryLog) -> None:
    found = blocked_items(log)
    for value in (None, item_json(item_id="a")):
        put(log, "a", value)
    for value in (item_json(item_id="b"), None):
        put(log, "b", value)
    assert found.poll() == {"b"}
    assert found.ids == {"b"}


def test_what_does_not_fit_changes_nothing(log: MemoryLog) -> None:
    found = blocked_items(log)
    put(log, "a", b"junk")
    put(log, "a", item_json(item_id="other"))
    log.append("items", None, b"")
    assert found.poll() == set()
    assert (found.ids, found.changes) == (set(), 0)


def test_it_is_caught_up_once_all_was_read(log: MemoryLog) -> None:
    put(log, "a", None)
    found = blocked_items(log)
    assert not found.caught_up
    found.poll()
    assert found.caught_up
    assert found.status.healthy
    found.close()


def test_a_topic_that_does_not_exist_blocks_nothing() -> None:
    found = blocked_items(MemoryLog())
    assert found.caught_up
    assert found.poll() == set()
