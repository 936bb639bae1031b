"""Loading versions: over gaps, damage and branches, always whole or not at all."""

import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.chain import Found, ancestors, load, manifests_between, newest_whole, updates_between
from model_store.errors import BrokenChain, Damaged, DamagedBlob, DamagedManifest
from model_store.lease import Lease
from model_store.memory_store import MemoryStore
from model_store.store import ModelStore
from model_store.version import BlobRef
from model_store.weights import Rows, State, Update
from tests.model_store.worlds import assert_same, encoded, index, manifest, publish, small, state_of


class CountingStore(MemoryStore):
    """How many round trips, and what they asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.manifest_trips: list[int] = []
        self.blob_trips: list[int] = []

    def manifest_bytes(self, versions: Sequence[int]) -> list[bytes | None]:
        self.manifest_trips.append(len(versions))
        return super().manifest_bytes(versions)

    def get_blobs(self, refs: Sequence[BlobRef]) -> list[bytes | None]:
        self.blob_trips.append(len(refs))
        return super().get_blobs(refs)


def shelf(
    kinds: str, store: MemoryStore | None = None, *, rows: int = 4
) -> tuple[MemoryStore, Lease, dict[int, list[Update]]]:
    """Versions 1, 2, ..., and the updates that make each.

    `s`: a snapshot, `d`: a delta, `r`: a snapshot that repeats its parent.
    """
    store = store or MemoryStore()
    lease = store.acquire("trainer", 1e9)
    assert lease is not None
    updates: dict[int, list[Update]] = {0: []}
    for version, kind in enumerate(kinds, 1):
        update = small(version, full=kind == "s", rows=rows)
        updates[version] = [update] if kind == "s" else [*updates[version - 1], update]
        if kind == "r":
            updates[version] = repeat(store, lease, version, version - 1, updates[version - 1])
        else:
            publish(store, lease, version, version - 1 or None, update)
    return store, lease, updates


def repeat(
    store: ModelStore, lease: Lease, version: int, parent: int, updates: list[Update], digest: str = "c0ffee"
) -> list[Update]:
    """A snapshot of its parent, made of no batches."""
    whole = state_of(updates).snapshot()
    made = manifest(version, parent, kind="snapshot", blobs=store.put_blobs(encoded(whole)), digest=digest)
    store.publish(made.model_copy(update={"batches": ()}), lease)
    return [whole]


def damage(store: MemoryStore, version: int, name: str = "weights/0") -> None:
    """Flips one bit in the middle of a blob."""
    ref = store.manifest(version).blobs[name]
    raw = bytearray(store.get_blobs([ref])[0] or b"")
    raw[len(raw) // 2] ^= 1
    store.tamper(blob=(ref.key, bytes(raw)))


def test_a_reader_is_led_by_the_shortest_way() -> None:
    store, _, _ = shelf("sddsdd")
    for have, want, way in [
        (None, 6, [4, 5, 6]),
        (None, 3, [1, 2, 3]),
        (None, 4, [4]),
        (5, 6, [6]),
        (4, 6, [5, 6]),
        (3, 6, [4, 5, 6]),
        (1, 6, [4, 5, 6]),
        (1, 3, [2, 3]),
        (6, 6, []),
        (6, 3, [1, 2, 3]),  # a rollback
        (6, 5, [4, 5]),
    ]:
        found = updates_between(store, have, want)
        assert [each.version for each, _ in found] == way
        assert [update.full for _, update in found] == ["sddsdd"[version - 1] == "s" for version in way]


@pytest.mark.parametrize("kinds", ["sddsd", "sdrdr"])
@pytest.mark.parametrize("readers", [True, False])
def test_every_version_from_every_other(readers: bool, kinds: str) -> None:
    store, _, updates = shelf(kinds)

    def state(version: int) -> State:
        whole = state_of(updates[version]).snapshot((lambda name: not name.startswith("trainer/")) if readers else None)
        return state_of([whole])

    for want in range(1, 6):
        expected = state(want).snapshot()
        assert_same(load(store, want, readers=readers).snapshot(), expected)
        for have in range(1, 6):
            assert_same(load(store, want, known=(state(have), have), readers=readers).snapshot(), expected)


def test_who_follows_passes_a_snapshot_that_changes_nothing() -> None:
    store = CountingStore()
    shelf("sdrdddddddrrd", store, rows=50)
    for have, want, way in [
        (2, 3, "r"),
        (1, 3, "dr"),
        (2, 4, "rd"),
        (1, 4, "drd"),
        (9, 13, "drrd"),
        (11, 12, "r"),
        (12, 13, "d"),
        (3, 3, ""),
        (1, 13, "Rd"),  # so far behind that to load it is less
        (None, 4, "Rd"),
        (4, 3, "R"),  # a rollback
    ]:
        store.blob_trips.clear()
        found = updates_between(store, have, want)
        assert [each.version for each, _ in found] == list(range(want - len(way) + 1, want + 1))
        assert [(update.full, bool(update.tables)) for _, update in found] == [
            {"r": (False, False), "R": (True, True), "d": (False, True)}[kind] for kind in way
        ]
        assert sum(store.blob_trips) == len(way.replace("r", ""))


def test_a_snapshot_is_loaded_where_what_it_repeats_cannot_be_come_to() -> None:
    def way(have: int, store: MemoryStore) -> list[tuple[int, bool]]:
        return [(each.version, update.full) for each, update in updates_between(store, have, 4)]

    store, lease, updates = shelf("sdd", rows=100)
    repeat(store, lease, 4, 3, updates[3])
    assert way(3, store) == [(4, False)]
    assert way(1, store) == [(2, False), (3, False), (4, False)]
    for damaged in ([2, 3], [3], [2]):
        for data in (None, b"{"):
            kept = {version: store.manifest(version).to_json() for version in damaged}
            for version in damaged:
                store.tamper(manifest=(version, data))
            assert way(1, store) == [(4, True)]
            for version, good in kept.items():
                store.tamper(manifest=(version, good))
    store.tamper(manifest=(3, None))
    assert way(3, store) == [(4, True)]  # of which configuration 3 was is not known any more


@pytest.mark.parametrize("damaged", [2, 3])
def test_a_snapshot_heals_the_damage_before_it(damaged: int) -> None:
    store, lease, updates = shelf("sdd", rows=100)
    damage(store, damaged)
    repeat(store, lease, 4, 3, updates[3])
    publish(store, lease, 5, 4, small(5, full=False, rows=100))
    expected = state_of([*updates[3], small(5, full=False, rows=100)]).snapshot()
    assert [update.full for _, update in updates_between(store, 1, 5)] == [True, False]
    assert_same(load(store, 5, known=(state_of(updates[1]), 1)).snapshot(), expected)
    damage(store, 4)
    with pytest.raises(DamagedBlob, match="version 4"):
        updates_between(store, 1, 5)
    if damaged == 2:  # and those who are beyond the damage have no use for the snapshot
        assert [update.full for _, update in updates_between(store, 3, 5)] == [False, False]


def test_a_snapshot_that_repeats_another_branch_is_loaded() -> None:
    store, lease, updates = shelf("sdd", rows=100)
    repeat(store, lease, 4, 2, updates[2])
    publish(store, lease, 5, 4, small(5, full=False, rows=100))
    expected = state_of([*updates[2], small(5, full=False, rows=100)]).snapshot()
    assert [(each.version, update.full) for each, update in updates_between(store, 3, 5)] == [(4, True), (5, False)]
    assert_same(load(store, 5, known=(state_of(updates[3]), 3)).snapshot(), expected)
    publish(store, lease, 6, 2, small(6, full=False, rows=100))
    updates[6] = [*updates[2], small(6, full=False, rows=100)]
    repeat(store, lease, 7, 6, updates[6])  # its parent is above 3, and does not lead over it
    assert [(each.version, update.full) for each, update in updates_between(store, 3, 7)] == [(7, True)]


def test_a_snapshot_after_what_is_no_checkpoint_is_passed_by_readers_alone() -> None:
    """It has the trainer's state as of its parent, and the parent has not."""
    store, lease, updates = shelf("sd", rows=100)
    full, delta = updates[2]
    for_readers = {name: data for name, data in encoded(delta).items() if name.startswith("weights/")}
    sparse = manifest(3, 1, blobs=store.put_blobs(for_readers)).model_copy(update={"checkpoint": False})
    store.publish(sparse, lease)
    repeat(store, lease, 4, 3, [full, delta])
    assert [update.full for _, update in updates_between(store, 3, 4)] == [False]
    assert [update.full for _, update in updates_between(store, 3, 4, readers=False)] == [True]
    assert_same(load(store, 4, known=(load(store, 3), 3)).snapshot(), state_of([full, delta]).snapshot())
    assert_same(load(store, 4, known=(load(store, 1), 1)).snapshot(), state_of([full, delta]).snapshot())


def test_a_snapshot_of_another_configuration_repeats_nothing() -> None:
    store, lease, updates = shelf("sd", rows=100)
    repeat(store, lease, 3, 2, updates[2], digest="other")
    for have in (1, 2):
        assert [(each.version, update.full) for each, update in updates_between(store, have, 3)] == [(3, True)]


def test_readers_do_not_fetch_what_is_for_trainers() -> None:
    store = CountingStore()
    shelf("sd", store)
    updates_between(store, None, 2, readers=True)
    updates_between(store, None, 2, readers=False)
    assert store.blob_trips == [2, 4]


def test_only_the_wanted_names() -> None:
    store, _, _ = shelf("sd")
    state = load(store, 2, names=lambda name: name == "item/row")
    assert list(state.tables) == ["item/row"]
    assert state.tensors == []


def test_round_trips() -> None:
    store = CountingStore()
    shelf("s" + "d" * 299, store)
    store.manifest_trips.clear()
    load(store, 300)
    assert store.manifest_trips == [64, 128, 108]
    assert store.blob_trips == [600]
    store.manifest_trips.clear()
    updates_between(store, 298, 300)
    assert store.manifest_trips == [3]


def test_branches() -> None:
    """A trainer that came back with an older version goes on from there; readers on the lost branch find the way."""
    store, lease, updates = shelf("sdd")
    publish(store, lease, 4, 2, small(40, full=False))
    publish(store, lease, 5, 4, small(50, full=False))
    expected = state_of([*updates[2], small(40, full=False), small(50, full=False)]).snapshot()
    assert [each.version for each in manifests_between(store, 3, 5)] == [1, 2, 4, 5]
    assert [each.version for each in manifests_between(store, 2, 5)] == [4, 5]
    assert_same(load(store, 5).snapshot(), expected)
    assert_same(load(store, 5, known=(state_of(updates[3]), 3)).snapshot(), expected)


@pytest.mark.parametrize("readers", [True, False])
@pytest.mark.parametrize("have", [None, 1])
def test_a_missing_manifest(have: int | None, readers: bool) -> None:
    store, _, _ = shelf("sddd")
    store.tamper(manifest=(3, None))
    with pytest.raises(BrokenChain, match="version 4: the manifest of version 3 is missing") as raised:
        updates_between(store, have, 4, readers=readers)
    assert raised.value.version == 3


def test_a_version_that_is_not_there() -> None:
    store, _, _ = shelf("s")
    with pytest.raises(BrokenChain, match="version 1007: the manifest of version 1007 is missing"):
        updates_between(store, 1, 1007)


def test_a_damaged_manifest() -> None:
    store, _, _ = shelf("sdd")
    store.tamper(manifest=(2, b"{"))
    with pytest.raises(BrokenChain, match=r"version 3: version 2: manifest") as raised:
        load(store, 3)
    assert raised.value.version == 2


def test_manifests_that_changed_places() -> None:
    store, _, _ = shelf("sddd")
    second, third = (store.manifest(version).to_json() for version in (2, 3))
    store.tamper(manifest=(2, third))
    store.tamper(manifest=(3, second))
    with pytest.raises(BrokenChain, match="version 3: the manifest of version 2 lies there") as raised:
        updates_between(store, 1, 4)
    assert raised.value.version == 3


def test_blobs_that_changed_places() -> None:
    store, _, updates = shelf("sddd")
    second, third = (store.manifest(version).blobs["weights/0"] for version in (2, 3))
    swapped = store.get_blobs([third, second])
    for ref, data in zip((second, third), swapped, strict=True):
        store.tamper(blob=(ref.key, data))
    with pytest.raises(DamagedBlob, match="version 2: blob weights/0 ha"):
        updates_between(store, 1, 4)
    assert sound(newest_whole(store), 1, updates) == [2]


@pytest.mark.parametrize("parent", [2, 3, 4, None])
def test_a_parent_comes_before_its_child(parent: int | None) -> None:
    store, _, _ = shelf("sddd")
    turned = json.loads(store.manifest(2).to_json()) | {"parent": parent}
    store.tamper(manifest=(2, json.dumps(turned).encode()))
    with pytest.raises(BrokenChain, match="version 2") as raised:
        updates_between(store, 1, 4)
    assert raised.value.version == 2


def test_who_loads_a_version_does_not_look_at_what_it_was_learned_from() -> None:
    """After a long outage of the store a manifest holds tens of thousands of batches."""
    store, _, updates = shelf("sdd")
    for version in (1, 2, 3):
        batches = [{"learned": "elsewise"}] * 3
        changed = json.loads(store.manifest(version).to_json()) | {"batches": batches}
        store.tamper(manifest=(version, json.dumps(changed).encode()))
    assert sound(newest_whole(store), 3, updates) == []
    assert [manifest.version for manifest, _ in updates_between(store, 1, 3)] == [2, 3]
    assert store.head(3).learned
    with pytest.raises(DamagedManifest, match="batches"):
        list(ancestors(store, 3))


def test_a_damaged_manifest_that_is_not_on_the_way_is_no_matter() -> None:
    store, _, _ = shelf("sdsd")
    store.tamper(manifest=(2, b"{"))
    load(store, 4)


@pytest.mark.parametrize("have", [None, 1, 2])
def test_another_configuration(have: int | None) -> None:
    store, lease, _ = shelf("sd")
    publish(store, lease, 3, 2, small(3, full=False), digest="other")
    with pytest.raises(BrokenChain, match="version 3 is of another configuration than its parent 2") as raised:
        updates_between(store, have, 3)
    assert raised.value.version == 3
    publish(store, lease, 4, 3, small(4), digest="third")  # a snapshot begins anew
    load(store, 4)


@pytest.mark.parametrize("name", ["weights/0", "trainer/0"])
def test_damaged_blobs(name: str) -> None:
    store, _, _ = shelf("sdd")
    ref = store.manifest(2).blobs[name]
    data = store.get_blobs([ref])[0]
    assert data is not None
    for tampered, why in [
        (None, f"blob {name} .* is missing"),
        (data[:-1], f"blob {name} has {len(data) - 1} bytes, not {len(data)}"),
        (data[:-1] + bytes([data[-1] ^ 1]), f"blob {name} hashes to"),
    ]:
        store.tamper(blob=(ref.key, tampered))
        with pytest.raises(DamagedBlob, match=f"version 2: {why}") as raised:
            load(store, 3)
        assert raised.value.version == 2
        if name == "trainer/0":
            load(store, 3, readers=True)
        with pytest.raises(DamagedBlob):
            load(store, 3, known=(load(store, 1), 1))


def test_a_blob_that_is_what_it_says_and_still_wrong() -> None:
    """Whoever can write a manifest can write its checksums too."""
    store, lease, _ = shelf("s")
    refs = store.put_blobs({"weights/0": b"not safetensors at all"})
    store.publish(manifest(2, 1, blobs=refs), lease)
    with pytest.raises(DamagedBlob, match="version 2: weights/0: a header of"):
        load(store, 2)
    refs = store.put_blobs(encoded(small(full=False)))
    store.publish(manifest(3, 1, kind="snapshot", blobs=refs), lease)
    with pytest.raises(DamagedBlob, match="version 3: weights/0: full and partial"):
        load(store, 3)


def test_a_ghost_that_points_at_nothing() -> None:
    store, _, _ = shelf("sd")
    nowhere = {"key": "tidemill:blob:" + "0" * 64, "bytes": 10, "checksum": "0" * 64}
    ghost = json.loads(store.manifest(2).to_json()) | {"version": 1002, "parent": 2, "blobs": {"x": nowhere}}
    store.tamper(manifest=(1002, json.dumps(ghost).encode()))
    with pytest.raises(DamagedBlob, match="version 1002: blob x"):
        updates_between(store, 2, 1002)


def test_a_delta_that_does_not_fit() -> None:
    store, lease, _ = shelf("s")
    publish(store, lease, 2, 1, small(2, full=False, rows=9))
    with pytest.raises(BrokenChain, match=r"version 2 does not fit what it is built on: .* a gap") as raised:
        load(store, 2)
    assert raised.value.version == 2


def test_a_known_state_is_not_touched_by_damage() -> None:
    store, _, updates = shelf("sddd")
    damage(store, 4)
    state = state_of(updates[1])
    with pytest.raises(Damaged):
        load(store, 4, known=(state, 1))
    assert_same(state.snapshot(), state_of(updates[1]).snapshot())


def test_tombstoned_rows() -> None:
    """Items that are deleted leave free rows, which others take later: by any way a reader sees the same."""

    def items(full: bool, size: int, ids: dict[int, str]) -> Update:
        rows = index(*ids)
        return Update(
            full,
            {
                "item/id": Rows(rows, list(ids.values()), size),
                "item/flag": Rows(rows, np.array([name != "" for name in ids.values()]), size),
                "item/row": Rows(rows, np.array([[len(name)] * 4 for name in ids.values()], np.float32), size),
            },
        )

    steps = [
        items(True, 4, {0: "a", 1: "b", 2: "c", 3: "d"}),
        items(False, 4, {1: "", 2: ""}),
        items(False, 5, {1: "e", 4: "b"}),  # one free row taken, and the deleted item come back elsewhere
        items(False, 5, {0: "", 4: ""}),
        items(False, 7, {2: "a", 5: "", 6: "f"}),
    ]
    expected = [
        ["a", "b", "c", "d"],
        ["a", "", "", "d"],
        ["a", "e", "", "d", "b"],
        ["", "e", "", "d", ""],
        ["", "e", "a", "d", "", "", "f"],
    ]
    store = MemoryStore()
    lease = store.acquire("trainer", 1e9)
    assert lease is not None
    updates: dict[int, list[Update]] = {}
    for version, update in enumerate(steps, 1):
        publish(store, lease, version, version - 1 or None, update)
        updates[version] = [*updates.get(version - 1, []), update]
    updates[6] = repeat(store, lease, 6, 5, updates[5])
    for want in updates:
        for have in (None, *updates):
            known = None if have is None else (state_of(updates[have]), have)
            state = load(store, want, known=known)
            ids = expected[min(want, 5) - 1]
            assert state.table("item/id") == ids
            assert list(state.table("item/flag")) == [name != "" for name in ids]
            assert_same(state.snapshot(), state_of(updates[want]).snapshot())


# -- whatever happens ------------------------------------------------------------------------------------------------


@st.composite
def shelves(draw: st.DrawFn) -> tuple[MemoryStore, dict[int, list[Update]]]:
    """Chains of every kind, with branches, and the updates that make each version."""
    store = MemoryStore()
    lease = store.acquire("trainer", 1e9)
    assert lease is not None
    rows = draw(st.sampled_from([4, 60]))
    publish(store, lease, 1, None, small(1, rows=rows))
    updates = {1: [small(1, rows=rows)]}
    for version, kind in enumerate(draw(st.text("sdddrr", max_size=9)), 2):
        parent = draw(st.one_of(st.just(version - 1), st.sampled_from(sorted(updates))))
        if kind == "r":
            updates[version] = repeat(store, lease, version, parent, updates[parent])
            continue
        update = small(version, full=kind == "s", rows=rows)
        updates[version] = [update] if kind == "s" else [*updates[parent], update]
        publish(store, lease, version, parent, update)
    return store, updates


def spoil(draw: Callable[[st.SearchStrategy[Any]], Any], store: MemoryStore, newest: int) -> None:
    """Loses, cuts, flips or exchanges some manifests and blobs, or retires some versions."""
    versions = list(range(1, newest + 1))
    manifests = {version: store.manifest(version) for version in versions}
    for version in draw(st.lists(st.sampled_from(versions), max_size=4)):
        what = draw(st.sampled_from(["manifest", "weights/0", "trainer/0"]))
        other = draw(st.sampled_from(versions))
        data = (
            manifests[version].to_json() if what == "manifest" else store.get_blobs([manifests[version].blobs[what]])[0]
        )
        swapped = (
            manifests[other].to_json() if what == "manifest" else store.get_blobs([manifests[other].blobs[what]])[0]
        )
        data = data or b""
        at = int(draw(st.sampled_from([0.0, 0.3, 0.6, 0.9, 0.999])) * len(data))
        put: bytes | None = draw(
            st.sampled_from(
                [None, b"", data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if data else b"x", swapped]
            )
        )
        if what == "manifest":
            store.tamper(manifest=(version, put))
        else:
            store.tamper(blob=(manifests[version].blobs[what].key, put))
    store.delete(set(draw(st.lists(st.sampled_from(versions), max_size=2))) - {newest})


@settings(max_examples=200)
@given(shelf=shelves(), data=st.data(), readers=st.booleans())
def test_a_readers_state_is_always_one_published_version(
    shelf: tuple[MemoryStore, dict[int, list[Update]]], data: st.DataObject, readers: bool
) -> None:
    store, updates = shelf

    def published(version: int) -> Update:
        want = (lambda name: not name.startswith("trainer/")) if readers else None
        return state_of([state_of(updates[version]).snapshot(want)]).snapshot()

    have = data.draw(st.one_of(st.none(), st.sampled_from(sorted(updates))))
    known = None if have is None else (load(store, have, readers=readers), have)
    spoil(data.draw, store, max(updates))
    whole = set()
    for version in updates:
        with contextlib.suppress(Damaged):
            assert_same(load(store, version, readers=readers).snapshot(), published(version))
            whole.add(version)
    found = newest_whole(store, readers=readers)
    assert (None if found is None else found.version) == max(whole, default=None)
    if found is not None:
        assert found.manifest.version == found.version
        assert_same(found.state.snapshot(), published(found.version))
    for want in data.draw(st.lists(st.sampled_from(sorted(updates)), max_size=3)):
        if known is None:
            break
        state, version = known
        try:
            assert load(store, want, known=known, readers=readers) is state
        except Damaged:
            assert_same(state.snapshot(), published(version))
            assert want not in whole  # who can load it from nothing comes to it from anywhere
        else:
            assert_same(state.snapshot(), published(want))
            known = state, want


# -- the newest whole version ----------------------------------------------------------------------------------------


def sound(found: Found | None, version: int, updates: dict[int, list[Update]]) -> list[int]:
    """Checks that `version` was found with its very weights; returns what was skipped."""
    assert found is not None
    assert (found.version, found.manifest.version) == (version, version)
    assert_same(found.state.snapshot(), state_of(updates[version]).snapshot())
    return [skipped for skipped, _ in found.skipped]


def test_the_newest_whole_is_mostly_the_newest() -> None:
    store, _, updates = shelf("sddsd")
    assert sound(newest_whole(store), 5, updates) == []
    assert sound(newest_whole(store, 3), 3, updates) == []
    assert newest_whole(store, 0) is None
    assert newest_whole(MemoryStore()) is None


@pytest.mark.parametrize(
    ("kinds", "damaged", "version", "skipped"),
    [
        ("sddsdd", [6], 5, [6]),
        ("sddsdd", [5], 4, [5]),
        ("sddsdd", [4], 3, [4]),
        ("sddsdd", [4, 2], 1, [4, 2]),
        ("sddsdd", [5, 6], 4, [5]),
        ("sddsdd", [1], 6, []),
        ("sssss", [5, 4], 3, [5, 4]),
    ],
)
def test_damage_is_passed_over_and_reported(kinds: str, damaged: list[int], version: int, skipped: list[int]) -> None:
    store, _, updates = shelf(kinds)
    for each in damaged:
        damage(store, each)
    found = newest_whole(store)
    assert sound(found, version, updates) == skipped
    assert found is not None
    assert all("hashes to" in why for _, why in found.skipped)


def test_nothing_is_whole() -> None:
    store, _, _ = shelf("sdd")
    damage(store, 1)
    assert newest_whole(store) is None


def test_missing_manifests_are_passed_over_too() -> None:
    store, _, updates = shelf("sdddd")
    store.tamper(manifest=(4, None))
    found = newest_whole(store)
    assert sound(found, 3, updates) == [4]


def test_damage_for_trainers_only_does_not_keep_readers_back() -> None:
    store, _, updates = shelf("sdd")
    damage(store, 3, "trainer/0")
    assert sound(newest_whole(store), 2, updates) == [3]
    found = newest_whole(store, readers=True)
    assert found is not None
    assert (found.version, found.skipped) == (3, [])


def test_a_younger_branch_beside_the_damage() -> None:
    store, lease, updates = shelf("sddd")
    publish(store, lease, 5, 2, small(50, full=False))  # beside 3 and 4
    publish(store, lease, 6, 4, small(60, full=False))
    updates[5] = [*updates[2], small(50, full=False)]
    damage(store, 3)
    assert sound(newest_whole(store), 5, updates) == [3]


def test_a_long_chain_with_its_damage_early_is_read_once() -> None:
    store = CountingStore()
    _, _, updates = shelf("s" + "d" * 150, store)
    damage(store, 50)
    store.blob_trips.clear()
    assert sound(newest_whole(store), 49, updates) == [50]
    assert len(store.blob_trips) == 1
