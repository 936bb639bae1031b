"""Keeping a lease through outages, losing it to another, waiting for it. The clock is the test's."""

import threading
import time

import pytest

from model_store.errors import LeaseLost, StoreUnavailable
from model_store.lease import Lease, LeaseKeeper, wait_for_lease
from model_store.memory_store import MemoryStore


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class ShakyStore(MemoryStore):
    """A store that can be away."""

    away = False
    calls = 0

    def _check(self) -> None:
        self.calls += 1
        if self.away:
            raise StoreUnavailable("Redis: connection refused")

    def acquire(self, holder: str, ttl: float) -> Lease | None:
        self._check()
        return super().acquire(holder, ttl)

    def renew(self, lease: Lease, ttl: float) -> bool:
        self._check()
        return super().renew(lease, ttl)

    def release(self, lease: Lease) -> None:
        self._check()
        super().release(lease)


def held(clock: Clock | None = None, ttl: float = 3.0) -> tuple[ShakyStore, LeaseKeeper]:
    store = ShakyStore(clock or Clock())
    lease = store.acquire("one", ttl)
    assert lease is not None
    return store, LeaseKeeper(store, lease, ttl)


def test_renewing_holds_it() -> None:
    clock = Clock()
    store, keeper = held(clock)
    for _ in range(5):
        clock.now += 2
        assert keeper.renew()
        assert store.acquire("two", 3) is None
    keeper.check()


def test_an_outage_longer_than_the_lease_does_not_lose_it() -> None:
    clock = Clock()
    store, keeper = held(clock)
    store.away = True
    for _ in range(5):
        clock.now += 2
        assert not keeper.renew()
        keeper.check()
    store.away = False
    assert store.holder() is None
    assert keeper.renew()
    assert store.acquire("two", 3) is None


def test_what_another_took_is_lost_for_good() -> None:
    clock = Clock()
    store, keeper = held(clock)
    clock.now += 4
    other = store.acquire("two", 3)
    assert other is not None
    assert not keeper.renew()
    assert keeper.lost.is_set()
    with pytest.raises(LeaseLost, match="lease 1 of one"):
        keeper.check()
    clock.now += 4
    assert not keeper.renew()  # the other's ran out as well: still not ours
    keeper.stop()
    assert store.renew(other, 3)  # and stopping did not release what is another's


def test_the_thread_renews_until_it_is_stopped() -> None:
    store, keeper = held(ttl=0.06)
    with keeper:
        end = time.monotonic() + 10
        while store.calls <= 4 and time.monotonic() < end:
            time.sleep(0.01)
        assert store.calls > 4
    calls = store.calls
    assert store.holder() is None, "given back"
    time.sleep(0.06)
    assert store.calls == calls


def test_the_thread_ends_when_the_lease_is_lost() -> None:
    clock = Clock()
    store, keeper = held(clock, ttl=0.03)
    clock.now += 1
    store.acquire("two", 100)
    with keeper:
        assert keeper.lost.wait(2)
    assert store.holder() == "two"


def test_stopping_while_the_store_is_away_does_not_raise() -> None:
    store, keeper = held()
    keeper.start()
    store.away = True
    keeper.stop()


def test_a_standby_takes_over_when_the_lease_runs_out() -> None:
    clock = Clock()
    store, _ = held(clock)
    found: list[Lease | None] = []
    stop = threading.Event()
    thread = threading.Thread(target=lambda: found.append(wait_for_lease(store, "two", 3, stop, poll=0.005)))
    thread.start()
    time.sleep(0.03)
    store.away = True  # an outage in between is waited for
    time.sleep(0.03)
    assert not found
    clock.now += 4
    store.away = False
    thread.join(2)
    assert found[0] is not None
    assert (found[0].holder, store.holder()) == ("two", "two")


def test_a_standby_can_be_stopped() -> None:
    store, _ = held()
    stop = threading.Event()
    stop.set()
    assert wait_for_lease(store, "two", 3, stop) is None
