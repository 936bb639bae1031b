"""Manifests signed with a key."""

import pytest

from model_store.chain import load, newest_whole
from model_store.errors import (
    BrokenChain,
    DamagedManifest,
)
from model_store.signature import Signer, sign
from model_store.store import ModelStore
from tests.contracts.model_store.labs import Lab, chain
from tests.model_store.worlds import assert_same, publish, small, state_of

KEY = Signer([b"the trainer's key"])


def test_what_is_published_is_signed_and_read(lab: Lab) -> None:
    store = lab.store
    store.signer = KEY
    lease = chain(lab, "s", "d")
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
def test_what_another_has_written_is_damaged(lab: Lab, author: Signer | None) -> None:
    store = lab.store
    store.signer = author
    lease = chain(lab, "s")
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


def test_a_signed_manifest_counts_under_its_own_number_only(lab: Lab) -> None:
    store = lab.store
    store.signer = KEY
    chain(lab, "s", "s")
    lab.put_manifest(2, store.manifest_bytes([1])[0])
    with pytest.raises(DamagedManifest, match="the manifest of version 1 lies there"):
        store.manifest(2)


def test_what_is_damaged_is_damaged_with_a_key_too(lab: Lab) -> None:
    store = lab.store
    store.signer = KEY
    chain(lab, "s")
    for data in (b"", b"{", b"[]", b"[" * 100_000, sign(b'{"format":1}', KEY.keys[0])):
        lab.put_manifest(1, data)
        with pytest.raises(DamagedManifest, match="version 1"):
            store.manifest(1)


def test_a_key_is_changed_while_everything_runs(lab: Lab) -> None:
    store, old, new = lab.store, b"the old key", b"the new key"
    lease = lab.lease()
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


def test_versions_from_before_the_key_can_be_adopted(lab: Lab) -> None:
    store, lease = lab.store, chain(lab, "s", "d")
    store.signer = Signer(KEY.keys, unsigned_too=True)
    found = newest_whole(store)
    assert found is not None
    assert found.version == 2
    publish(store, lease, 3, 2, small(3))  # as a run begins: with a snapshot
    store.signer = KEY
    found = newest_whole(store)
    assert found is not None
    assert (found.version, found.skipped) == (3, [])
