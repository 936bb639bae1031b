"""What is published, and what a version needs."""

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from model_store.chain import load
from model_store.errors import (
    BlobMissing,
    Incomplete,
    NoSuchVersion,
    ParentMissing,
    StillNeeded,
    VersionExists,
)
from model_store.redis_connection import RedisConnection
from model_store.store import ModelStore
from model_store.version import BlobRef
from model_store.weights import Update
from tests.contracts.model_store.labs import Lab, chain, in_memory, in_redis, in_redis_and_folder
from tests.model_store.worlds import assert_same, encoded, histories, manifest, publish, small, state_of


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


def test_a_published_version_is_there_and_not_live(lab: Lab) -> None:
    store, lease = lab.store, lab.lease()
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
    for make in (in_memory, lambda: in_redis(connection), lambda: in_redis_and_folder(connection, tmp_path)):
        lab = make()
        lease = lab.lease()
        for version, update in enumerate(updates, 1):
            publish(lab.store, lease, version, version - 1 or None, update)
        for version in range(1, len(updates) + 1):
            assert_same(load(lab.store, version).snapshot(), state_of(updates[:version]).snapshot())


def test_versions_only_grow(lab: Lab) -> None:
    store, lease = lab.store, lab.lease()
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


def test_the_same_word_for_word_is_published_once(lab: Lab) -> None:
    """The answer to the first call may have been lost."""
    store, lease = lab.store, lab.lease()
    made = publish(store, lease, 1, None, small())
    store.publish(made, lease)
    assert len(store.log()) == 1
    store.move(1, "", lease=lease)
    publish(store, lease, 2, 1, small(1, full=False))
    with pytest.raises(VersionExists):
        store.publish(made, lease)


def test_a_delta_needs_its_parent(lab: Lab) -> None:
    lease = chain(lab, "s", "d")
    with pytest.raises(ParentMissing) as raised:
        publish(lab.store, lease, 7, 6, small(1, full=False))
    assert isinstance(raised.value, Incomplete)
    assert lab.store.newest() == 2
    publish(lab.store, lease, 7, 6, small())  # a snapshot does not


@pytest.mark.parametrize("name", ["weights/0", "trainer/0"])
def test_a_version_needs_its_blobs(lab: Lab, name: str) -> None:
    store, lease = lab.store, lab.lease()
    refs = store.put_blobs(encoded(small()))
    lab.put_blob(refs[name].key, None)
    with pytest.raises(BlobMissing, match=name):
        store.publish(manifest(1, blobs=refs), lease)
    lab.put_blob(refs[name].key, b"cut o")
    with pytest.raises(BlobMissing):
        store.publish(manifest(1, blobs=refs), lease)
    assert store.newest() is None
    store.publish(manifest(1, blobs=store.put_blobs(encoded(small()))), lease)
