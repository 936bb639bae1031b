"""What only Redis can do: be away, restart, forget, fill up, and be shared."""

import socket
import time
from collections.abc import Sequence
from contextlib import closing

import pytest

from model_store.chain import ancestors, load, newest_whole
from model_store.errors import DamagedManifest, Incomplete, LeaseLost, StoreUnavailable
from model_store.keys import Keys
from model_store.lease import LeaseKeeper
from model_store.redis_blobs import UNPUBLISHED_SECONDS
from model_store.redis_connection import RedisConnection, connect
from model_store.redis_store import LINGER_SECONDS, RedisStore
from model_store.version import BlobRef
from tests.model_store.worlds import assert_same, encoded, manifest, publish, small, state_of
from tests.redis_server import free_port, redis_server


@pytest.fixture
def store(connection: RedisConnection) -> RedisStore:
    return RedisStore(connection)


def left(connection: RedisConnection, refs: dict[str, BlobRef]) -> set[int]:
    """The blobs' times to live in seconds; -1 for ever, -2 gone."""
    return {connection.call("TTL", ref.key) for ref in refs.values()}


def test_it_holds_what_the_contract_says(store: RedisStore, connection: RedisConnection) -> None:
    lease = store.acquire("host:1", 30)
    assert lease is not None
    made = publish(store, lease, 1, None, small())
    store.move(1, "first", lease=lease)
    assert connection.call("GET", "tidemill:{model}:live") == b"1"
    assert connection.call("GET", "tidemill:{model}:manifest:1") == made.to_json()
    for ref in made.blobs.values():
        assert ref.key == f"tidemill:blob:{ref.checksum}"
        assert len(connection.call("GET", ref.key)) == ref.bytes
    assert [entry[1] for entry in connection.call("XRANGE", "tidemill:{model}:log", "-", "+")] == [
        {b"what": b"publish", b"alias": b"", b"version": b"1", b"reason": b"snapshot"},
        {b"what": b"move", b"alias": b"champion", b"version": b"1", b"reason": b"first"},
    ]
    assert connection.call("GET", "tidemill:{model}:lease") == b"%d:host:1" % lease.token


def test_every_key_is_documented_and_in_the_models_slot(store: RedisStore, connection: RedisConnection) -> None:
    lease = store.acquire("one", 30)
    assert lease is not None
    for version in range(1, 4):
        publish(store, lease, version, None, small(version))
    store.move(3, "", alias="challenger")
    store.rollback(2, "")
    store.request_snapshot("please")
    store.delete([1])
    keys = store.keys
    known = {
        getattr(keys, name) for name, value in vars(Keys).items() if isinstance(value, property) and value.__doc__
    } | {keys.alias("challenger"), keys.manifest(2), keys.manifest(3)}
    for raw in connection.call("KEYS", "*"):
        key = raw.decode()
        assert key in known or key.startswith("tidemill:blob:")
        assert "{model}" in key or key.startswith("tidemill:blob:") or key == keys.models


# -- lifetimes of blobs ------------------------------------------------------------------------------------------------


def test_what_is_never_published_goes_by_itself(store: RedisStore, connection: RedisConnection) -> None:
    refs = store.put_blobs(encoded(small()))
    assert all(0 < each <= UNPUBLISHED_SECONDS for each in left(connection, refs))
    lease = store.acquire("one", 30)
    assert lease is not None
    store.publish(manifest(1, blobs=refs), lease)
    assert left(connection, refs) == {-1}
    # put once more for a version that never comes: it must not go with that one
    store.put_blobs(encoded(small()))
    assert left(connection, refs) == {-1}


def test_a_refused_version_leaves_its_blobs_to_go(store: RedisStore, connection: RedisConnection) -> None:
    lease = store.acquire("one", 30)
    assert lease is not None
    store.release(lease)
    refs = store.put_blobs(encoded(small()))
    with pytest.raises(LeaseLost):
        store.publish(manifest(1, blobs=refs), lease)
    assert all(0 < each <= UNPUBLISHED_SECONDS for each in left(connection, refs))


def test_a_retired_blob_lingers_for_those_who_read_it(store: RedisStore, connection: RedisConnection) -> None:
    lease = store.acquire("one", 30)
    assert lease is not None
    refs = publish(store, lease, 1, None, small(1)).blobs
    publish(store, lease, 2, None, small(2))
    store.delete([1])
    assert all(0 < each <= LINGER_SECONDS for each in left(connection, refs))
    publish(store, lease, 3, None, small(1))  # the very same again
    assert left(connection, refs) == {-1}


def test_the_latest_manifests_of_retired_versions_are_kept(connection: RedisConnection) -> None:
    store = RedisStore(connection, retired_manifests=3)
    lease = store.acquire("one", 30)
    assert lease is not None
    for version in range(1, 13):
        publish(store, lease, version, version - 1 or None, small(version))
    data = store.manifest_bytes(range(1, 13))

    def kept() -> list[int]:
        found = store.retired_manifest_bytes(range(1, 13))
        assert all(there in (None, was) for there, was in zip(found, data, strict=True))
        return [version for version, there in enumerate(found, 1) if there is not None]

    store.delete([1, 2])
    assert kept() == [1, 2]
    store.delete([9, 10, 3])  # by their numbers, not by when they went
    assert kept() == [3, 9, 10]
    store.delete([4, 5, 6, 7, 8, 11])
    assert kept() == [9, 10, 11]
    assert connection.call("HLEN", store.keys.retired) == 3
    packed = connection.call("HGET", store.keys.retired, 11)
    assert len(packed) < len(data[10] or b"")
    connection.call("HSET", store.keys.retired, 11, b"not deflated")
    with pytest.raises(DamagedManifest, match="version 11"):
        list(ancestors(store, 12))


def test_a_base_that_is_retired_while_it_is_read_is_still_read_whole(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = store.acquire("one", 30)
    assert lease is not None
    publish(store, lease, 1, None, small(1))
    publish(store, lease, 2, 1, small(2, full=False))
    get_blobs = store.get_blobs

    def meanwhile(refs: Sequence[BlobRef]) -> list[bytes | None]:
        publish(store, lease, 3, 2, small(3))
        store.delete([1, 2], lease=lease)
        return get_blobs(refs)

    monkeypatch.setattr(store, "get_blobs", meanwhile)
    assert_same(load(store, 2).snapshot(), state_of([small(1), small(2, full=False)]).snapshot())
    assert store.versions() == [3]


def test_models_share_blobs_and_do_not_take_them_from_each_other(
    store: RedisStore, connection: RedisConnection
) -> None:
    other = RedisStore(connection, Keys(model="other"), linger=0)
    for each in (store, other):
        lease = each.acquire("one", 30)
        assert lease is not None
        refs = publish(each, lease, 1, None, small(1)).blobs
        publish(each, lease, 2, None, small(2))
    other.delete([1])
    assert left(connection, refs) == {-1}
    load(store, 1)
    store.delete([1])
    assert all(each <= LINGER_SECONDS and each != -1 for each in left(connection, refs))


def test_dropping_goes_on_after_a_crash_amid_it(
    store: RedisStore, connection: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = store.acquire("one", 30)
    assert lease is not None
    refs = publish(store, lease, 1, None, small(1)).blobs
    publish(store, lease, 2, None, small(2))
    with monkeypatch.context() as crash:
        crash.setattr(store.blobs, "drop", lambda: None)
        store.delete([1])
    assert left(connection, refs) == {-1}
    store.delete([])
    assert all(each != -1 for each in left(connection, refs))


def test_what_came_back_after_a_crash_amid_dropping_is_kept(
    store: RedisStore, connection: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = store.acquire("one", 30)
    assert lease is not None
    publish(store, lease, 1, None, small(1))
    publish(store, lease, 2, None, small(2))
    with monkeypatch.context() as crash:
        crash.setattr(store.blobs, "drop", lambda: None)
        store.delete([1])
    refs = publish(store, lease, 3, None, small(1)).blobs
    store.delete([])
    assert left(connection, refs) == {-1}


def test_putting_a_damaged_blob_again_mends_it(store: RedisStore, connection: RedisConnection) -> None:
    lease = store.acquire("one", 30)
    assert lease is not None
    refs = publish(store, lease, 1, None, small()).blobs
    for ref in refs.values():
        connection.call("SETRANGE", ref.key, ref.bytes // 2, b"\xff\xff")
    assert newest_whole(store) is None
    store.put_blobs(encoded(small()))
    assert newest_whole(store) is not None


def test_many_large_blobs(store: RedisStore) -> None:
    blobs = {f"weights/{n}": bytes([n]) * (30 << 20) for n in range(5)}
    refs = store.put_blobs(blobs)
    assert store.get_blobs(list(refs.values())) == list(blobs.values())


# -- pointers that people write ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "x", "-1", "1.5", "9" * 30])
def test_a_pointer_that_is_no_number(store: RedisStore, connection: RedisConnection, value: str) -> None:
    connection.call("SET", store.keys.live, value)
    with pytest.raises(DamagedManifest, match="live is no version"):
        store.live()


# -- faults ------------------------------------------------------------------------------------------------------------


def test_nobody_there() -> None:
    store = RedisStore(connect(f"redis://127.0.0.1:{free_port()}", retries=0))
    with pytest.raises(StoreUnavailable, match=r"Redis: .*refused"):
        store.live()
    with pytest.raises(StoreUnavailable):
        store.put_blobs({"weights/0": b"x"})
    with pytest.raises(StoreUnavailable):
        store.acquire("one", 3)


def test_somebody_who_does_not_answer() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        store = RedisStore(connect(f"redis://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1, retries=0))
        start = time.monotonic()
        with pytest.raises(StoreUnavailable, match="Timeout"):
            store.live()
        assert time.monotonic() - start < 2


def test_a_password_is_not_in_the_message() -> None:
    store = RedisStore(connect(f"redis://:hush@127.0.0.1:{free_port()}", retries=0))
    with pytest.raises(StoreUnavailable) as raised:
        store.live()
    assert "hush" not in str(raised.value)


def test_a_server_that_forgot_the_scripts(store: RedisStore, connection: RedisConnection) -> None:
    lease = store.acquire("one", 30)
    assert lease is not None
    publish(store, lease, 1, None, small())
    connection.call("SCRIPT", "FLUSH")
    publish(store, lease, 2, 1, small(1, full=False))
    connection.call("SCRIPT", "FLUSH")
    assert store.move(2, "", lease=lease)
    connection.call("SCRIPT", "FLUSH")
    store.delete([1, 77])


def test_a_server_that_is_full(store: RedisStore, connection: RedisConnection) -> None:
    lease = store.acquire("one", 30)
    assert lease is not None
    publish(store, lease, 1, None, small())
    refs = store.put_blobs(encoded(small(2)))
    connection.call("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            store.put_blobs({"weights/0": b"x"})
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            store.publish(manifest(2, blobs=refs), lease)
        assert store.newest() == 1
        load(store, 1)
    finally:
        connection.call("CONFIG", "SET", "maxmemory", "0")
    store.publish(manifest(2, blobs=refs), lease)


def test_a_server_that_was_made_a_replica() -> None:
    with redis_server() as server, server.client() as connection:
        store = RedisStore(connection)
        lease = store.acquire("one", 30)
        assert lease is not None
        publish(store, lease, 1, None, small())
        connection.call("REPLICAOF", "127.0.0.1", free_port())
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                publish(store, lease, 2, 1, small(1, full=False))
        assert store.newest() == 1  # reading goes on
        connection.call("REPLICAOF", "NO", "ONE")
        publish(store, lease, 2, 1, small(1, full=False))


def test_a_restart_with_everything_kept() -> None:
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server, server.client() as connection:
        store = RedisStore(connection)
        lease = store.acquire("one", 0.3)
        assert lease is not None
        keeper = LeaseKeeper(store, lease, 0.3)
        publish(store, lease, 1, None, small())
        store.move(1, "", lease=lease)
        server.kill()
        with pytest.raises(StoreUnavailable):
            store.live()
        assert not keeper.renew()
        keeper.check()
        time.sleep(0.3)
        server.start()
        # the lease ran out meanwhile and nobody took it: the trainer goes on as if nothing had been
        publish(store, lease, 2, 1, small(1, full=False))
        assert keeper.renew()
        assert store.move(2, "", lease=lease)
        assert store.acquire("two", 3) is None
        load(store, 2)


def test_a_restart_with_everything_lost() -> None:
    with redis_server() as server, server.client() as connection:
        store = RedisStore(connection)
        lease = store.acquire("one", 30)
        assert lease is not None
        publish(store, lease, 1, None, small())
        server.kill()
        server.start()
        with pytest.raises(Incomplete):
            publish(store, lease, 2, 1, small(1, full=False))
        publish(store, lease, 2, 1, small(2))
        assert store.move(2, "begun anew", lease=lease)
        load(store, 2)
        # whoever held a lease before that one is shut out, and later ones have higher tokens
        server.kill()
        server.start()
        other = store.acquire("two", 30)
        assert other is not None
        assert other.token > lease.token
        assert not store.renew(lease, 3)
        with pytest.raises(LeaseLost):
            publish(store, lease, 3, None, small())


def test_a_failover_that_lost_a_lease_leaves_it_to_its_holder_or_to_the_next(store: RedisStore) -> None:
    connection, token = store._redis, store.keys.lease_token
    first = store.acquire("one", 30)
    assert first is not None
    store.release(first)
    second = store.acquire("two", 30)
    assert second is not None
    connection.call("SET", token, first.token)  # as it was before the second came
    connection.call("DEL", store.keys.lease)
    assert store.renew(second, 30)
    publish(store, second, 1, None, small())
    assert not store.renew(first, 30)
    connection.call("SET", token, first.token)
    connection.call("DEL", store.keys.lease)
    time.sleep(0.002)
    third = store.acquire("three", 30)
    assert third is not None
    assert third.token > second.token
    assert not store.renew(second, 30)


def test_the_log_is_trimmed(connection: RedisConnection) -> None:
    store = RedisStore(connection, log_entries=100)
    lease = store.acquire("one", 30)
    assert lease is not None
    for version in range(1, 501):
        store.publish(manifest(version), lease)
        store.move(version, "", lease=lease)
    assert 100 <= connection.call("XLEN", store.keys.log) < 400
    assert store.live_at(time.time() + 1) == 500
    assert store.live_at(0) is None


def test_a_long_log_is_read_page_by_page(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_store.redis_store._PAGE", 3)
    lease = store.acquire("one", 30)
    assert lease is not None
    store.publish(manifest(1), lease)
    store.move(1, "", lease=lease)
    for version in range(2, 12):
        store.publish(manifest(version), lease)
    assert store.live_at(time.time() + 1) == 1
    assert store.live_since(0) == {1}
