import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.list_index import LATEST_S, Holders, entry_of, expired
from tests.consumers.samples import ids

lists_of_items = st.lists(st.lists(ids, max_size=6), max_size=6)
JUNK = [b"", b"x", b"12345", b"junk of 17 bytes."]


@given(lists_of_items, st.sets(ids, max_size=4), st.data())
def test_every_list_that_holds_an_item_is_found_and_no_other(
    lists: list[list[str]], wanted: set[str], data: st.DataObject
) -> None:
    wanted |= data.draw(st.sets(st.sampled_from([item for items in lists for item in items] or ["x"]), max_size=4))
    entries = [entry_of(items, 7) for items in lists]
    found = Holders(wanted).among([*entries, *JUNK])
    assert {n: set(items) for n, items in found.items()} == {
        n: set(items) & wanted for n, items in enumerate(lists) if set(items) & wanted
    }


def test_no_items_and_no_lists() -> None:
    assert Holders([]).among([entry_of(["x"], 7), entry_of([], 7)]) == {}
    assert Holders(["x"]).among([]) == {}
    assert expired([], 0) == []


def test_two_items_of_one_number_are_both_named() -> None:
    """ "plumless" and "buckeroo" have the same CRC-32: a list that holds either is named for both."""
    assert Holders(["plumless", "buckeroo"]).among([entry_of(["plumless"], 7)]) == {0: ["plumless", "buckeroo"]}


def test_four_bytes_an_item() -> None:
    assert len(entry_of([f"i{n}" for n in range(50)], 0)) == 204
    assert entry_of(["a"], 258) == bytes([2, 1, 0, 0]) + (0xE8B7BE43).to_bytes(4, "little")


@pytest.mark.parametrize(("now", "gone"), [(0, []), (100, []), (100.5, [0]), (1e9, [0, 1]), (1e12, [0, 1, 2])])
def test_entries_of_lists_that_have_expired(now: float, gone: list[int]) -> None:
    entries = [entry_of(["x"], 100), entry_of([], 101), entry_of(["x"], 10**12)]
    assert entries[2][:4] == LATEST_S.to_bytes(4, "little")
    assert expired([*entries, *JUNK], now) == [*gone, *range(3, 3 + len(JUNK))]
