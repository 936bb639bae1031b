"""Who may write."""

import threading
import time

import pytest

from model_store.errors import (
    LeaseLost,
)
from model_store.store import ModelStore
from tests.contracts.model_store.labs import TTL, Lab
from tests.model_store.worlds import manifest, publish, small

SHORT = 0.05  # a lease that runs out while a test waits


def test_one_holder_at_a_time(store: ModelStore) -> None:
    first = store.acquire("one", TTL)
    assert first is not None
    assert store.holder() == "one"
    assert store.acquire("two", TTL) is None
    assert store.acquire("one", TTL) is None  # a name is no proof
    assert store.renew(first, TTL)
    store.release(first)
    assert store.holder() is None
    second = store.acquire("two: with a colon", TTL)
    assert second is not None
    assert second.token > first.token
    assert store.holder() == "two: with a colon"


def test_a_lease_that_ran_out_is_still_mine_if_nobody_took_it(lab: Lab) -> None:
    store, lease = lab.store, lab.lease(ttl=SHORT)
    time.sleep(2 * SHORT)
    assert store.holder() is None
    publish(store, lease, 1, None, small())
    assert store.move(1, "", lease=lease)
    assert store.renew(lease, TTL)
    assert store.acquire("other", TTL) is None
    store.delete([], lease=lease)


def test_a_stale_trainer_can_write_nothing(lab: Lab) -> None:
    store, stale = lab.store, lab.lease("stale", SHORT)
    publish(store, stale, 1, None, small())
    publish(store, stale, 2, 1, small(1, full=False))
    store.move(1, "", lease=stale)
    time.sleep(2 * SHORT)
    current = lab.lease("current", SHORT)
    before = store.log()
    for _ in range(2):
        assert not store.renew(stale, TTL)
        with pytest.raises(LeaseLost):
            publish(store, stale, 3, 2, small(2, full=False))
        with pytest.raises(LeaseLost):
            store.move(2, "", lease=stale)
        with pytest.raises(LeaseLost):
            store.move(2, "", lease=stale, alias="challenger")
        with pytest.raises(LeaseLost):
            store.delete([2], lease=stale)
        store.release(stale)
        time.sleep(2 * SHORT)  # and it does not come back when the other's runs out
    assert (store.newest(), store.live(), store.log()) == (2, 1, before)
    publish(store, current, 3, 2, small(2, full=False))
    assert store.move(3, "", lease=current)


def test_what_was_given_back_writes_nothing_more(lab: Lab) -> None:
    store, lease = lab.store, lab.lease()
    publish(store, lease, 1, None, small())
    store.release(lease)
    with pytest.raises(LeaseLost):
        publish(store, lease, 2, 1, small(1, full=False))
    with pytest.raises(LeaseLost):
        store.move(1, "", lease=lease)
    assert not store.renew(lease, TTL)


def test_two_holders_race_and_every_version_has_one_author(lab: Lab) -> None:
    """Each takes the lease, publishes till it is lost, and takes it again; nothing is published under a stale one."""
    store = lab.store
    base = lab.lease()
    publish(store, base, 1, None, small())
    store.release(base)
    written: list[tuple[int, int]] = []
    end = time.monotonic() + 1.0

    def trainer(name: str) -> None:
        while time.monotonic() < end:
            if (lease := store.acquire(name, 0.01)) is None:
                continue
            for step in range(20):
                version = (store.newest() or 0) + 1
                try:
                    store.publish(manifest(version, 1, run=f"{name}-{lease.token}-{step}"), lease)
                except LeaseLost:
                    break
                written.append((version, lease.token))

    threads = [threading.Thread(target=trainer, args=(name,)) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written.sort()
    versions, tokens = [version for version, _ in written], [token for _, token in written]
    assert len(set(tokens)) > 2, "the lease never changed hands"
    assert versions == store.versions()[1:]
    assert tokens == sorted(tokens), "someone published after their lease was taken"
