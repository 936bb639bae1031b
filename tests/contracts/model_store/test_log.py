"""The log of what was done, and what readers ask of the trainer."""

import time

import pytest

from model_store.errors import (
    LeaseLost,
)
from tests.contracts.model_store.labs import Lab, chain


def test_which_version_was_live_when(lab: Lab) -> None:
    store, lease = lab.store, chain(lab, "s", "d", "d")
    times = [time.time()]
    for step in (
        lambda: store.move(1, "first", lease=lease),
        lambda: store.move(2, "second", lease=lease),
        lambda: store.move(3, "trial", alias="challenger"),
        lambda: store.rollback(1, "odd"),
        lambda: store.promote(3, "mended"),
    ):
        time.sleep(0.005)
        step()
        time.sleep(0.005)
        times.append(time.time())
    assert [store.live_at(at) for at in times] == [None, 1, 2, 2, 1, 3]
    assert store.live_at(0) is None
    assert store.live_since(0) == {1, 2, 3}
    assert store.live_since(times[1]) == {1, 2, 3}
    assert store.live_since(times[3]) == {2, 1, 3}
    assert store.live_since(times[4]) == {1, 3}
    assert store.live_since(times[5]) == {3}
    log = store.log()
    assert [entry[1:] for entry in log] == [
        ("promote", "champion", 3, "mended"),
        ("rollback", "champion", 1, "odd"),
        ("move", "challenger", 3, "trial"),
        ("move", "champion", 2, "second"),
        ("move", "champion", 1, "first"),
        ("publish", "", 3, "delta"),
        ("publish", "", 2, "delta"),
        ("publish", "", 1, "snapshot"),
    ]
    assert [entry.time for entry in log] == sorted((entry.time for entry in log), reverse=True)
    assert store.log(2) == log[:2]


def test_moving_to_where_it_is_says_nothing(lab: Lab) -> None:
    store, lease = lab.store, chain(lab, "s")
    for _ in range(3):
        assert store.move(1, "again", lease=lease)
    assert len(store.log()) == 2


def test_reasons_in_any_language(lab: Lab) -> None:
    store, _ = lab.store, chain(lab, "s")
    store.rollback(1, "wegen \u201eÄrger\u201c 😀\nzweite Zeile")
    assert store.log(1)[0].reason == "wegen \u201eÄrger\u201c 😀\nzweite Zeile"


def test_a_snapshot_is_asked_for_once(lab: Lab) -> None:
    store, lease = lab.store, lab.lease()
    assert store.take_snapshot_request(lease) is None
    store.request_snapshot("version 7 is damaged")
    store.request_snapshot("me too")
    assert store.take_snapshot_request(lease) == "version 7 is damaged"
    assert store.take_snapshot_request(lease) is None


def test_who_lost_the_lease_takes_no_request_away_from_who_holds_it(lab: Lab) -> None:
    store, old = lab.store, lab.lease("old")
    store.release(old)
    new = lab.lease("new")
    store.request_snapshot("version 7 is damaged")
    with pytest.raises(LeaseLost):
        store.take_snapshot_request(old)
    assert store.take_snapshot_request(new) == "version 7 is damaged"
