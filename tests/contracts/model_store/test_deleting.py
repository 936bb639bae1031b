"""Versions that go, and their blobs with them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_store.chain import ancestors, load
from model_store.errors import (
    DamagedManifest,
    StillNeeded,
)
from model_store.memory_store import MemoryStore
from model_store.redis_connection import RedisConnection
from model_store.version import BlobRef
from tests.contracts.model_store.labs import Lab, chain, in_memory, in_redis
from tests.model_store.worlds import manifest, publish, small

ALL_BLOBS = {pick: MemoryStore().put_blobs({"x": b"blob %d" % pick})["x"] for pick in range(4)}


def test_deleting_removes_versions_and_their_blobs(lab: Lab) -> None:
    store, lease = lab.store, chain(lab, "s", "d", "s", "d")
    refs = {version: list(store.manifest(version).blobs.values()) for version in range(1, 5)}
    store.move(4, "", lease=lease)
    store.delete([1, 2, 77], lease=lease)
    store.delete([1, 2])  # again is nothing
    assert store.versions() == [3, 4]
    assert [each.version for each in store.summaries()] == [3, 4]
    assert store.manifests([1, 2]) == [None, None]
    assert set(store.get_blobs(refs[1] + refs[2])) == {None}
    assert None not in store.get_blobs(refs[3] + refs[4])


def test_manifests_of_deleted_versions_stay_on_record(lab: Lab) -> None:
    store, lease = lab.store, chain(lab, "s", "d", "s", "d")
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


def test_a_record_of_what_was_deleted_that_cannot_be_read_says_so(lab: Lab) -> None:
    store, lease = lab.store, chain(lab, "s", "d", "s")
    lab.put_manifest(2, b"{")
    store.move(3, "", lease=lease)
    store.delete([1, 2])
    with pytest.raises(DamagedManifest, match="version 2"):
        list(ancestors(store, 3))


def test_a_blob_stays_as_long_as_a_version_names_it(lab: Lab) -> None:
    store, lease = lab.store, lab.lease()
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


def test_one_blob_under_two_names(lab: Lab) -> None:
    store, lease = lab.store, lab.lease()
    refs = store.put_blobs({"weights/0": b"same", "trainer/0": b"same"})
    store.publish(manifest(1, blobs=refs), lease)
    publish(store, lease, 2, None, small())
    store.delete([1])
    assert store.get_blobs(list(refs.values())) == [None, None]


def test_what_is_needed_is_not_deleted_nor_anything_with_it(lab: Lab) -> None:
    store, lease = lab.store, chain(lab, "s", "s", "s", "s")
    store.move(2, "", lease=lease)
    store.move(3, "", alias="challenger")
    for needed in (2, 3, 4):
        with pytest.raises(StillNeeded, match=str(needed)):
            store.delete([1, needed])
    assert store.versions() == [1, 2, 3, 4]
    assert load(store, 1).tables


def test_a_manifest_cannot_make_us_delete_other_peoples_keys(lab: Lab) -> None:
    """The key in a reference is only followed, never removed: what is removed is named by the checksum."""
    store, lease = lab.store, lab.lease()
    ref = store.put_blobs({"weights/0": b"mine"})["weights/0"]
    lab.put_blob("tidemill:recs:u1", b"a list")
    store.publish(manifest(1, blobs={"weights/0": BlobRef(key="tidemill:recs:u1", bytes=6, checksum="a" * 64)}), lease)
    publish(store, lease, 2, None, small())
    store.delete([1])
    assert store.get_blobs([BlobRef(key="tidemill:recs:u1", bytes=6, checksum="a" * 64)])[0] == b"a list"
    assert store.get_blobs([ref])[0] == b"mine"


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
    for lab in (in_memory(), in_redis(connection)):
        store, lease, held, newest = lab.store, lab.lease(), {}, 0
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
