"""Versions that go while others read."""

import threading
import time
from collections.abc import Sequence

import pytest

from model_store.chain import load
from model_store.errors import (
    BrokenChain,
    DamagedBlob,
)
from model_store.lease import Lease
from model_store.retention import retire
from model_store.version import BlobRef
from tests.contracts.model_store.labs import Lab, chain
from tests.model_store.worlds import assert_same, publish, small, state_of


def test_retiring_keeps_what_is_needed_and_lets_the_rest_go(lab: Lab) -> None:
    store, lease = lab.store, chain(lab, "s", "d", "d", "s", "d", "s", "d", "s", "d", "d")
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
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, lease = lab.store, chain(lab, "s", "d", "s", "d")
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
    lab: Lab, have: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader is told, and what it has is as it was; the pointer has moved on meanwhile, and there all is whole."""
    store, lease = lab.store, chain(lab, "s", "d", "d")
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


def test_a_base_that_is_retired_before_its_manifest_is_read(lab: Lab) -> None:
    store, lease = lab.store, chain(lab, "s", "d", "s")
    store.move(3, "", lease=lease)
    told = 2  # what the pointer said a moment ago
    store.delete([1, 2])
    with pytest.raises(BrokenChain, match="the manifest of version 2 is missing"):
        load(store, told)
    assert_same(load(store, 3).snapshot(), state_of([small(3)]).snapshot())


def test_reading_while_versions_come_and_go(lab: Lab) -> None:
    """A reader that follows the pointer loads whole versions, or is told; never a mix of two."""
    store, lease = lab.store, chain(lab, "s")
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
