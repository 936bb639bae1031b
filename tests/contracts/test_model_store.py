"""The laws of a model store, over every implementation."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_store.blob_folder import BlobFolder
from model_store.chain import ancestors, load, newest_whole
from model_store.errors import (
    BlobMissing,
    BrokenChain,
    DamagedBlob,
    DamagedManifest,
    Incomplete,
    LeaseLost,
    NoSuchVersion,
    ParentMissing,
    StillNeeded,
    VersionExists,
)
from model_store.keys import Keys
from model_store.lease import Lease
from model_store.memory_store import MemoryStore
from model_store.redis_connection import RedisConnection
from model_store.redis_store import RedisStore
from model_store.retention import retire
from model_store.signature import Signer, sign
from model_store.store import ModelStore
from model_store.version import BlobRef
from model_store.weights import Update
from tests.model_store.worlds import assert_same, encoded, histories, manifest, publish, small, state_of

TTL = 30.0
SHORT = 0.05  # a lease that runs out while a test waits


@dataclass
class Shelf:
    """A store, and hands that can reach behind it."""

    store: ModelStore
    put_manifest: Callable[[int, bytes | None], None]
    put_blob: Callable[[str, bytes | None], None]

    def lease(self, holder: str = "trainer", ttl: float = TTL) -> Lease:
        lease = self.store.acquire(holder, ttl)
        assert lease is not None
        return lease


def memory() -> Shelf:
    store = MemoryStore()
    return Shelf(
        store,
        lambda version, data: store.tamper(manifest=(version, data)),
        lambda key, data: store.tamper(blob=(key, data)),
    )


def in_redis(connection: RedisConnection) -> Shelf:
    connection.call("FLUSHALL")
    store = RedisStore(connection, linger=0)

    def put(key: str, data: bytes | None) -> None:
        connection.call("DEL", key) if data is None else connection.call("SET", key, data)

    return Shelf(store, lambda version, data: put(store.keys.manifest(version), data), put)


def in_redis_and_folder(connection: RedisConnection, folder: Path) -> Shelf:
    connection.call("FLUSHALL")
    for file in folder.iterdir():
        file.unlink()
    store = RedisStore(connection, folder=BlobFolder(f"file://{folder}"), linger=0)

    def put(key: str, data: bytes | None) -> None:
        if key.startswith("file://"):
            file = Path(key.removeprefix("file://"))
            file.unlink() if data is None else file.write_bytes(data)
        else:
            connection.call("DEL", key) if data is None else connection.call("SET", key, data)

    return Shelf(store, lambda version, data: put(store.keys.manifest(version), data), put)


@pytest.fixture(params=["memory", "redis", "redis and folder"])
def shelf(request: pytest.FixtureRequest) -> Shelf:
    if request.param == "memory":
        return memory()
    connection = request.getfixturevalue("connection")
    if request.param == "redis":
        return in_redis(connection)
    return in_redis_and_folder(connection, request.getfixturevalue("tmp_path"))


@pytest.fixture
def store(shelf: Shelf) -> ModelStore:
    return shelf.store


def chain(shelf: Shelf, *kinds: str) -> Lease:
    """Publishes versions 1, 2, ...: `s` for a snapshot, `d` for a delta on the one before."""
    lease = shelf.lease()
    for version, kind in enumerate(kinds, 1):
        publish(shelf.store, lease, version, version - 1 or None, small(version, full=kind == "s"))
    return lease


# -- an empty store ----------------------------------------------------------------------------------------------------


def test_an_empty_store(store: ModelStore) -> None:
    assert store.live() is None
    assert store.newest() is None
    assert store.pinned() is None
    assert store.holder() is None
    assert not store.versions()
    assert not store.summaries()
    assert not store.log()
    assert store.aliases() == {}
    assert store.live_at(time.time()) is None
    assert store.live_since(0) == set()
    assert store.manifests([1, 2]) == [None, None]
    assert not store.manifests([])
    assert not store.get_blobs([])
    assert store.put_blobs({}) == {}
    store.delete([1, 2])
    with pytest.raises(NoSuchVersion):
        store.manifest(1)
    with pytest.raises(NoSuchVersion):
        store.promote()
    with pytest.raises(NoSuchVersion):
        store.rollback(1, "none there")


# -- blobs and versions ------------------------------------------------------------------------------------------------


def test_blobs_come_back_as_they_were_put(store: ModelStore) -> None:
    blobs = {"weights/0": b"", "weights/1": bytes(range(256)), "trainer/0": b"x" * 100_000}
    refs = store.put_blobs(blobs)
    assert list(refs) == list(blobs)
    assert {name: ref.bytes for name, ref in refs.items()} == {name: len(data) for name, data in blobs.items()}
    assert store.get_blobs(list(refs.values())) == list(blobs.values())
    assert store.get_blobs([refs["trainer/0"]])[0] == blobs["trainer/0"]
    assert store.put_blobs(blobs) == refs
    nowhere = BlobRef(key="tidemill:blob:" + "0" * 64, bytes=1, checksum="0" * 64)
    assert store.get_blobs([nowhere, refs["weights/1"]]) == [None, blobs["weights/1"]]


def test_a_published_version_is_there_and_not_live(shelf: Shelf) -> None:
    store, lease = shelf.store, shelf.lease()
    made = publish(store, lease, 1, None, small())
    assert store.manifest(1) == made
    assert store.manifests([2, 1]) == [None, made]
    assert store.newest() == 1
    assert store.versions() == [1]
    assert store.summaries() == [made.summary()]
    assert store.live() is None
    assert store.move(1, "first", lease=lease)
    assert store.live() == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(updates=histories())
def test_what_is_loaded_is_what_was_published(
    connection: RedisConnection, tmp_path: Path, updates: list[Update]
) -> None:
    for make in (memory, lambda: in_redis(connection), lambda: in_redis_and_folder(connection, tmp_path)):
        shelf = make()
        lease = shelf.lease()
        for version, update in enumerate(updates, 1):
            publish(shelf.store, lease, version, version - 1 or None, update)
        for version in range(1, len(updates) + 1):
            assert_same(load(shelf.store, version).snapshot(), state_of(updates[:version]).snapshot())


def test_versions_only_grow(shelf: Shelf) -> None:
    store, lease = shelf.store, shelf.lease()
    publish(store, lease, 5, None, small())
    for version in (5, 4, 1):
        with pytest.raises(VersionExists):
            publish(store, lease, version, None, small(9))
    publish(store, lease, 9, 5, small(1, full=False))
    store.move(9, "", lease=lease)
    assert store.versions() == [5, 9]
    # also when the highest is no longer there
    publish(store, lease, 10, 9, small(2, full=False))
    store.promote(9)
    with pytest.raises(StillNeeded):
        store.delete([10])
    assert store.newest() == 10


def test_the_same_word_for_word_is_published_once(shelf: Shelf) -> None:
    """The answer to the first call may have been lost."""
    store, lease = shelf.store, shelf.lease()
    made = publish(store, lease, 1, None, small())
    store.publish(made, lease)
    assert len(store.log()) == 1
    store.move(1, "", lease=lease)
    publish(store, lease, 2, 1, small(1, full=False))
    with pytest.raises(VersionExists):
        store.publish(made, lease)


def test_a_delta_needs_its_parent(shelf: Shelf) -> None:
    lease = chain(shelf, "s", "d")
    with pytest.raises(ParentMissing) as raised:
        publish(shelf.store, lease, 7, 6, small(1, full=False))
    assert isinstance(raised.value, Incomplete)
    assert shelf.store.newest() == 2
    publish(shelf.store, lease, 7, 6, small())  # a snapshot does not


@pytest.mark.parametrize("name", ["weights/0", "trainer/0"])
def test_a_version_needs_its_blobs(shelf: Shelf, name: str) -> None:
    store, lease = shelf.store, shelf.lease()
    refs = store.put_blobs(encoded(small()))
    shelf.put_blob(refs[name].key, None)
    with pytest.raises(BlobMissing, match=name):
        store.publish(manifest(1, blobs=refs), lease)
    shelf.put_blob(refs[name].key, b"cut o")
    with pytest.raises(BlobMissing):
        store.publish(manifest(1, blobs=refs), lease)
    assert store.newest() is None
    store.publish(manifest(1, blobs=store.put_blobs(encoded(small()))), lease)


# -- the lease ---------------------------------------------------------------------------------------------------------


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


def test_a_lease_that_ran_out_is_still_mine_if_nobody_took_it(shelf: Shelf) -> None:
    store, lease = shelf.store, shelf.lease(ttl=SHORT)
    time.sleep(2 * SHORT)
    assert store.holder() is None
    publish(store, lease, 1, None, small())
    assert store.move(1, "", lease=lease)
    assert store.renew(lease, TTL)
    assert store.acquire("other", TTL) is None
    store.delete([], lease=lease)


def test_a_stale_trainer_can_write_nothing(shelf: Shelf) -> None:
    store, stale = shelf.store, shelf.lease("stale", SHORT)
    publish(store, stale, 1, None, small())
    publish(store, stale, 2, 1, small(1, full=False))
    store.move(1, "", lease=stale)
    time.sleep(2 * SHORT)
    current = shelf.lease("current", SHORT)
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


def test_what_was_given_back_writes_nothing_more(shelf: Shelf) -> None:
    store, lease = shelf.store, shelf.lease()
    publish(store, lease, 1, None, small())
    store.release(lease)
    with pytest.raises(LeaseLost):
        publish(store, lease, 2, 1, small(1, full=False))
    with pytest.raises(LeaseLost):
        store.move(1, "", lease=lease)
    assert not store.renew(lease, TTL)


def test_two_holders_race_and_every_version_has_one_author(shelf: Shelf) -> None:
    """Each takes the lease, publishes till it is lost, and takes it again; nothing is published under a stale one."""
    store = shelf.store
    base = shelf.lease()
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


# -- the live pointer and other aliases --------------------------------------------------------------------------------


def test_the_trainer_promotes_until_an_operator_pins(shelf: Shelf) -> None:
    store, lease = shelf.store, chain(shelf, "s", "d", "d")
    assert store.move(2, "", lease=lease)
    store.rollback(1, "lists look odd")
    assert (store.live(), store.pinned()) == (1, 1)
    assert not store.move(3, "", lease=lease)
    assert store.live() == 1
    publish(store, lease, 4, 3, small(4, full=False))
    assert store.promote(None, "fixed") == 4
    assert (store.live(), store.pinned()) == (4, None)
    assert store.move(3, "", lease=lease)
    assert store.promote(2) == 2
    assert store.live() == 2


def test_an_operators_move_neither_pins_nor_unpins(shelf: Shelf) -> None:
    store, _ = shelf.store, chain(shelf, "s", "d")
    assert store.move(1, "by hand")
    assert store.pinned() is None
    store.rollback(1, "")
    assert store.move(2, "by hand")
    assert (store.live(), store.pinned()) == (2, 1)


def test_rolling_back_to_what_is_live_pins_it(shelf: Shelf) -> None:
    store, lease = shelf.store, chain(shelf, "s", "d")
    store.move(1, "", lease=lease)
    store.rollback(1, "stay")
    assert not store.move(2, "", lease=lease)


def test_since_when_it_is_pinned(shelf: Shelf) -> None:
    store, lease = shelf.store, chain(shelf, "s", "d")
    assert store.pinned_since() is None
    store.move(1, "", lease=lease)
    assert store.pinned_since() is None
    before = time.time()
    store.rollback(1, "odd")
    first = store.pinned_since()
    assert first is not None
    assert before - 0.01 <= first <= time.time() + 0.01
    time.sleep(0.02)
    store.move(2, "by hand")
    assert not store.move(2, "", lease=lease)
    assert store.pinned_since() == first
    store.rollback(1, "still odd")  # from now on
    second = store.pinned_since()
    assert second is not None
    assert second > first
    store.promote(1)
    assert store.pinned_since() is None


def test_a_trainer_lets_a_pin_go_only_under_its_lease(shelf: Shelf) -> None:
    store, lease = shelf.store, chain(shelf, "s", "d")
    store.rollback(1, "odd")
    store.release(lease)
    current = shelf.lease("another")
    before = store.log()
    with pytest.raises(LeaseLost):
        store.promote(2, "it has lasted", lease=lease)
    assert (store.live(), store.pinned(), store.log()) == (1, 1, before)
    assert store.promote(2, "it has lasted", lease=current) == 2
    assert (store.live(), store.pinned()) == (2, None)


def test_a_champion_that_moves_has_no_challenger_behind_it(shelf: Shelf) -> None:
    store, lease = shelf.store, chain(shelf, "s", "d", "d", "d")

    def challenger() -> int | None:
        return store.aliases().get("challenger")

    store.move(1, "", lease=lease)
    store.move(2, "worse", alias="challenger", lease=lease)
    store.rollback(1, "")
    assert challenger() == 2  # it is ahead
    store.promote(2)
    assert challenger() is None
    store.move(3, "worse", alias="challenger", lease=lease)
    store.move(4, "better", lease=lease)
    assert challenger() is None
    store.move(3, "odd", alias="challenger")  # by hand, behind the champion
    store.move(2, "back")
    assert challenger() == 3
    store.move(4, "an alias of its own", alias="tried")
    store.rollback(4, "")
    assert store.aliases() == {"champion": 4, "tried": 4}


def test_other_aliases(shelf: Shelf) -> None:
    store, lease = shelf.store, chain(shelf, "s", "d")
    store.rollback(1, "")
    assert store.move(2, "try it", alias="challenger", lease=lease)  # a pin holds the champion alone
    assert store.aliases() == {"champion": 1, "challenger": 2}
    assert store.live() == 1
    assert store.log(1)[0][1:] == ("move", "challenger", 2, "try it")


@pytest.mark.parametrize("alias", ["", "a:b", "a b", "{x}", "../x"])
def test_names_that_are_no_alias(store: ModelStore, alias: str) -> None:
    with pytest.raises(ValueError, match="alias"):
        store.move(1, "", alias=alias)


def test_nothing_points_at_what_is_not_there(shelf: Shelf) -> None:
    store, lease = shelf.store, chain(shelf, "s")
    for move in (
        lambda: store.move(2, ""),
        lambda: store.move(2, "", lease=lease),
        lambda: store.rollback(2, ""),
        lambda: store.promote(2),
    ):
        with pytest.raises(NoSuchVersion):
            move()
    assert store.live() is None
    assert store.pinned() is None


# -- the log -----------------------------------------------------------------------------------------------------------


def test_which_version_was_live_when(shelf: Shelf) -> None:
    store, lease = shelf.store, chain(shelf, "s", "d", "d")
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


def test_moving_to_where_it_is_says_nothing(shelf: Shelf) -> None:
    store, lease = shelf.store, chain(shelf, "s")
    for _ in range(3):
        assert store.move(1, "again", lease=lease)
    assert len(store.log()) == 2


def test_reasons_in_any_language(shelf: Shelf) -> None:
    store, _ = shelf.store, chain(shelf, "s")
    store.rollback(1, "wegen \u201eÄrger\u201c 😀\nzweite Zeile")
    assert store.log(1)[0].reason == "wegen \u201eÄrger\u201c 😀\nzweite Zeile"


# -- readers' wishes ---------------------------------------------------------------------------------------------------


def test_a_snapshot_is_asked_for_once(shelf: Shelf) -> None:
    store, lease = shelf.store, shelf.lease()
    assert store.take_snapshot_request(lease) is None
    store.request_snapshot("version 7 is damaged")
    store.request_snapshot("me too")
    assert store.take_snapshot_request(lease) == "version 7 is damaged"
    assert store.take_snapshot_request(lease) is None


def test_who_lost_the_lease_takes_no_request_away_from_who_holds_it(shelf: Shelf) -> None:
    store, old = shelf.store, shelf.lease("old")
    store.release(old)
    new = shelf.lease("new")
    store.request_snapshot("version 7 is damaged")
    with pytest.raises(LeaseLost):
        store.take_snapshot_request(old)
    assert store.take_snapshot_request(new) == "version 7 is damaged"


# -- deleting ----------------------------------------------------------------------------------------------------------


def test_deleting_removes_versions_and_their_blobs(shelf: Shelf) -> None:
    store, lease = shelf.store, chain(shelf, "s", "d", "s", "d")
    refs = {version: list(store.manifest(version).blobs.values()) for version in range(1, 5)}
    store.move(4, "", lease=lease)
    store.delete([1, 2, 77], lease=lease)
    store.delete([1, 2])  # again is nothing
    assert store.versions() == [3, 4]
    assert [each.version for each in store.summaries()] == [3, 4]
    assert store.manifests([1, 2]) == [None, None]
    assert set(store.get_blobs(refs[1] + refs[2])) == {None}
    assert None not in store.get_blobs(refs[3] + refs[4])


def test_manifests_of_deleted_versions_stay_on_record(shelf: Shelf) -> None:
    store, lease = shelf.store, chain(shelf, "s", "d", "s", "d")
    store.move(4, "", lease=lease)
    before = store.manifest_bytes([1, 2, 3])
    assert None not in before
    assert store.retired_manifest_bytes([1, 2, 3, 9]) == [None] * 4
    assert store.retired_manifest_bytes([]) == []
    store.delete([1, 2], lease=lease)
    assert store.retired_manifest_bytes([2, 3, 1, 9]) == [before[1], None, before[0], None]
    store.delete([1, 2, 3])
    assert store.retired_manifest_bytes([1, 2, 3]) == before
    assert [manifest.version for manifest in ancestors(store, 4)] == [4, 3, 2, 1]


def test_a_record_of_what_was_deleted_that_cannot_be_read_says_so(shelf: Shelf) -> None:
    store, lease = shelf.store, chain(shelf, "s", "d", "s")
    shelf.put_manifest(2, b"{")
    store.move(3, "", lease=lease)
    store.delete([1, 2])
    with pytest.raises(DamagedManifest, match="version 2"):
        list(ancestors(store, 3))


def test_a_blob_stays_as_long_as_a_version_names_it(shelf: Shelf) -> None:
    store, lease = shelf.store, shelf.lease()
    shared = small(7)
    for version in (1, 2, 3):
        publish(store, lease, version, None, shared)
    store.move(3, "", lease=lease)
    refs = list(store.manifest(1).blobs.values())
    store.delete([1])
    assert None not in store.get_blobs(refs)
    store.delete([2])
    assert None not in store.get_blobs(refs)
    publish(store, lease, 4, None, small(8))
    store.move(4, "", lease=lease)
    store.delete([3])
    assert set(store.get_blobs(refs)) == {None}
    # and it can come again
    publish(store, lease, 5, None, shared)
    assert None not in store.get_blobs(refs)


def test_one_blob_under_two_names(shelf: Shelf) -> None:
    store, lease = shelf.store, shelf.lease()
    refs = store.put_blobs({"weights/0": b"same", "trainer/0": b"same"})
    store.publish(manifest(1, blobs=refs), lease)
    publish(store, lease, 2, None, small())
    store.delete([1])
    assert store.get_blobs(list(refs.values())) == [None, None]


def test_what_is_needed_is_not_deleted_nor_anything_with_it(shelf: Shelf) -> None:
    store, lease = shelf.store, chain(shelf, "s", "s", "s", "s")
    store.move(2, "", lease=lease)
    store.move(3, "", alias="challenger")
    for needed in (2, 3, 4):
        with pytest.raises(StillNeeded, match=str(needed)):
            store.delete([1, needed])
    assert store.versions() == [1, 2, 3, 4]
    assert load(store, 1).tables


def test_a_manifest_cannot_make_us_delete_other_peoples_keys(shelf: Shelf) -> None:
    """The key in a reference is only followed, never removed: what is removed is named by the checksum."""
    store, lease = shelf.store, shelf.lease()
    ref = store.put_blobs({"weights/0": b"mine"})["weights/0"]
    shelf.put_blob("tidemill:recs:u1", b"a list")
    store.publish(manifest(1, blobs={"weights/0": BlobRef(key="tidemill:recs:u1", bytes=6, checksum="a" * 64)}), lease)
    publish(store, lease, 2, None, small())
    store.delete([1])
    assert store.get_blobs([BlobRef(key="tidemill:recs:u1", bytes=6, checksum="a" * 64)])[0] == b"a list"
    assert store.get_blobs([ref])[0] == b"mine"


def test_retiring_keeps_what_is_needed_and_lets_the_rest_go(shelf: Shelf) -> None:
    store, lease = shelf.store, chain(shelf, "s", "d", "d", "s", "d", "s", "d", "s", "d", "d")
    store.move(3, "", lease=lease)
    store.move(10, "", lease=lease)
    # all manifests are years old; versions 3 and 10 were live just now
    assert retire(store, now=time.time(), grace=60, keep=2, lease=lease) == [4, 5, 7]
    assert store.versions() == [1, 2, 3, 6, 8, 9, 10]
    for version in (3, 6, 10):
        load(store, version)
    time.sleep(0.02)
    assert retire(store, now=time.time() + 61, grace=60, keep=1, lease=lease) == [1, 2, 3, 6]
    assert retire(store, now=time.time() + 61, grace=60, keep=1, lease=lease) == []
    load(store, 10)


def test_an_operator_who_moves_the_pointer_amid_retiring_finds_it_whole(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, lease = shelf.store, chain(shelf, "s", "d", "s", "d")
    store.move(4, "", lease=lease)
    delete = store.delete

    def moved_before(versions: list[int], *, lease: Lease | None = None) -> None:
        monkeypatch.undo()
        store.rollback(2, "in between")
        delete(versions, lease=lease)

    monkeypatch.setattr(store, "delete", moved_before)
    assert retire(store, now=time.time() + 100, grace=0, keep=0, lease=lease) == []
    load(store, 2)


@pytest.mark.parametrize("have", [None, 1, 2])
def test_a_base_that_is_retired_between_its_manifest_and_its_blobs(
    shelf: Shelf, have: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader is told, and what it has is as it was; the pointer has moved on meanwhile, and there all is whole."""
    store, lease = shelf.store, chain(shelf, "s", "d", "d")
    updates = [small(version, full=version == 1) for version in (1, 2, 3)]
    state = None if have is None else state_of(updates[:have])
    get_blobs = store.get_blobs

    def meanwhile(refs: Sequence[BlobRef]) -> list[bytes | None]:
        monkeypatch.undo()
        publish(store, lease, 4, 3, small(4))
        assert store.move(4, "", lease=lease)
        assert retire(store, now=time.time() + 100, grace=0, keep=0, lease=lease) == [1, 2, 3]
        return get_blobs(refs)

    store.move(3, "", lease=lease)
    monkeypatch.setattr(store, "get_blobs", meanwhile)
    with pytest.raises(DamagedBlob, match="is missing"):
        load(store, 3, known=None if state is None or have is None else (state, have))
    if state is not None:
        assert_same(state.snapshot(), state_of(updates[:have]).snapshot())
    assert store.live() == 4
    known = None if state is None or have is None else (state, have)
    assert_same(load(store, 4, known=known).snapshot(), state_of([small(4)]).snapshot())


def test_a_base_that_is_retired_before_its_manifest_is_read(shelf: Shelf) -> None:
    store, lease = shelf.store, chain(shelf, "s", "d", "s")
    store.move(3, "", lease=lease)
    told = 2  # what the pointer said a moment ago
    store.delete([1, 2])
    with pytest.raises(BrokenChain, match="the manifest of version 2 is missing"):
        load(store, told)
    assert_same(load(store, 3).snapshot(), state_of([small(3)]).snapshot())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(data=st.data())
def test_blobs_are_there_exactly_as_long_as_a_version_names_them(
    connection: RedisConnection, data: st.DataObject
) -> None:
    """Random publishing and deleting, with few different blobs so that many are shared."""
    steps = data.draw(
        st.lists(
            st.one_of(
                st.lists(st.integers(0, 3), max_size=3).map(lambda picks: ("publish", picks)),
                st.lists(st.integers(1, 12), max_size=4).map(lambda picks: ("delete", picks)),
            ),
            max_size=12,
        )
    )
    for shelf in (memory(), in_redis(connection)):
        store, lease, held, newest = shelf.store, shelf.lease(), {}, 0
        for what, picks in steps:
            if what == "publish":
                newest += 1
                refs = store.put_blobs({f"weights/{n}": b"blob %d" % pick for n, pick in enumerate(picks)})
                store.publish(manifest(newest, blobs=refs), lease)
                held[newest] = set(picks)
            else:
                gone = [version for version in picks if version < newest]
                store.delete(gone)
                for version in gone:
                    held.pop(version, None)
            named = set().union(*held.values())
            found = store.get_blobs(list(ALL_BLOBS.values()))
            assert {pick for pick, blob in zip(ALL_BLOBS, found, strict=True) if blob is not None} == named
            assert store.versions() == sorted(held)


ALL_BLOBS = {pick: MemoryStore().put_blobs({"x": b"blob %d" % pick})["x"] for pick in range(4)}


def test_reading_while_versions_come_and_go(shelf: Shelf) -> None:
    """A reader that follows the pointer loads whole versions, or is told; never a mix of two."""
    store, lease = shelf.store, chain(shelf, "s")
    store.move(1, "", lease=lease)
    updates = {1: [small(1)]}
    stop = threading.Event()
    failures: list[str] = []
    loads = 0

    def reader() -> None:
        nonlocal loads
        while not stop.is_set():
            if (version := store.live()) is None:
                continue
            found = load(store, version).snapshot()
            try:
                assert_same(found, state_of(updates[version]).snapshot())
            except AssertionError as error:
                failures.append(f"{version}: {error}")
            loads += 1

    thread = threading.Thread(target=reader)
    thread.start()
    deadline = time.monotonic() + 60
    version = 1
    # however slow the machine is: enough versions, and enough readings while they came
    while (version < 120 or loads <= 5) and time.monotonic() < deadline:
        version += 1
        full = version % 10 == 0
        update = small(version, full=full)
        updates[version] = [update] if full else [*updates[version - 1], update]
        publish(store, lease, version, version - 1, update)
        store.move(version, "", lease=lease)
        if full:
            # the grace of the readers, in versions: what was live up to now is not taken away
            store.delete(range(1, max(1, version - 30)), lease=lease)
    stop.set()
    thread.join()
    assert not failures
    assert loads > 5


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b'{"format":1}', b"[" * 100_000])
def test_damaged_manifests_are_named(shelf: Shelf, data: bytes) -> None:
    store, _ = shelf.store, chain(shelf, "s", "d")
    shelf.put_manifest(2, data)
    with pytest.raises(DamagedManifest, match="version 2") as raised:
        store.manifest(2)
    assert raised.value.version == 2
    assert store.manifest_bytes([1, 2])[1] == data


def test_a_manifest_under_another_number(shelf: Shelf) -> None:
    store, _ = shelf.store, chain(shelf, "s", "s")
    shelf.put_manifest(2, store.manifest(1).to_json())
    with pytest.raises(DamagedManifest, match="the manifest of version 1 lies there"):
        store.manifest(2)


# -- signatures --------------------------------------------------------------------------------------------------------

KEY = Signer([b"the trainer's key"])


def test_what_is_published_is_signed_and_read(shelf: Shelf) -> None:
    store = shelf.store
    store.signer = KEY
    lease = chain(shelf, "s", "d")
    made = publish(store, lease, 3, 2, small(3, full=False))
    assert made.signature is None
    found = store.manifest(3)
    assert found.model_copy(update={"signature": None}) == made
    assert store.manifest_bytes([3]) == [found.to_json()] == [sign(made.to_json(), KEY.keys[0])]
    assert_same(load(store, 3).snapshot(), state_of([small(1), *(small(v, full=False) for v in (2, 3))]).snapshot())
    store.publish(made, lease)
    assert len(store.log()) == 3
    assert store.promote() == 3
    # who has no key reads all the same
    store.signer = None
    assert store.manifest(3) == found


@pytest.mark.parametrize("author", [None, Signer([b"another's key"])])
def test_what_another_has_written_is_damaged(shelf: Shelf, author: Signer | None) -> None:
    store = shelf.store
    store.signer = author
    lease = chain(shelf, "s")
    store.signer = KEY
    publish(store, lease, 2, 1, small(2, full=False))
    publish(store, lease, 3, None, small(3))
    store.move(3, "", lease=lease)
    with pytest.raises(DamagedManifest, match=r"^version 1: .*TIDEMILL_SIGNING_KEY") as raised:
        store.manifest(1)
    assert raised.value.version == 1
    with pytest.raises(DamagedManifest):
        store.manifests([3, 1])
    for version in (1, 2):
        with pytest.raises(BrokenChain, match="TIDEMILL_SIGNING_KEY"):
            load(store, version)
    load(store, 3)
    for steer in (lambda: store.rollback(1, ""), lambda: store.promote(1)):
        with pytest.raises(DamagedManifest):
            steer()
    assert (store.live(), store.pinned()) == (3, None)
    found = newest_whole(store, 2)
    assert found is None


def test_a_signed_manifest_counts_under_its_own_number_only(shelf: Shelf) -> None:
    store = shelf.store
    store.signer = KEY
    chain(shelf, "s", "s")
    shelf.put_manifest(2, store.manifest_bytes([1])[0])
    with pytest.raises(DamagedManifest, match="the manifest of version 1 lies there"):
        store.manifest(2)


def test_what_is_damaged_is_damaged_with_a_key_too(shelf: Shelf) -> None:
    store = shelf.store
    store.signer = KEY
    chain(shelf, "s")
    for data in (b"", b"{", b"[]", b"[" * 100_000, sign(b'{"format":1}', KEY.keys[0])):
        shelf.put_manifest(1, data)
        with pytest.raises(DamagedManifest, match="version 1"):
            store.manifest(1)


def test_a_key_is_changed_while_everything_runs(shelf: Shelf) -> None:
    store, old, new = shelf.store, b"the old key", b"the new key"
    lease = shelf.lease()
    for version, keys in enumerate(([old], [old, new], [new, old], [new]), 1):
        store.signer = Signer(keys)
        publish(store, lease, version, None, small(version))
    readers = {"old": [old], "both": [old, new], "new": [new]}
    readable = {}
    for name, keys in readers.items():
        store.signer = Signer(keys)
        readable[name] = [version for version in store.versions() if whole(store, version)]
    assert readable == {"old": [1, 2], "both": [1, 2, 3, 4], "new": [3, 4]}


def whole(store: ModelStore, version: int) -> bool:
    try:
        return bool(load(store, version).tables)
    except BrokenChain:
        return False


def test_versions_from_before_the_key_can_be_adopted(shelf: Shelf) -> None:
    store, lease = shelf.store, chain(shelf, "s", "d")
    store.signer = Signer(KEY.keys, unsigned_too=True)
    found = newest_whole(store)
    assert found is not None
    assert found.version == 2
    publish(store, lease, 3, 2, small(3))  # as a run begins: with a snapshot
    store.signer = KEY
    found = newest_whole(store)
    assert found is not None
    assert (found.version, found.skipped) == (3, [])


def test_keys() -> None:
    keys = Keys()
    assert keys.live == "tidemill:{model}:live" == keys.alias("champion")
    assert keys.manifest(118) == "tidemill:{model}:manifest:118"
    assert keys.log == "tidemill:{model}:log"
    assert keys.blob("ab") == "tidemill:blob:ab"
    assert Keys(model="b", prefix="shop").alias("x") == "shop:{b}:alias:x"
    for bad in ("", "{", "a}", "a\n"):
        with pytest.raises(ValueError, match="name"):
            Keys(model=bad)
