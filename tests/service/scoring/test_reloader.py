import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from consumers.micro_batch import ItemChange
from model_store.chain import load
from model_store.errors import DamagedManifest, NoSuchVersion, ParentMissing, StoreUnavailable
from model_store.memory_store import MemoryStore
from model_store.signature import Signer
from model_store.version import BlobRef, Manifest
from model_store.weights import Update
from service.health import Health
from service.metrics import ScorerMetrics
from service.model.recommender import Recommender
from service.scoring.reloader import Reloader
from service.training.learner import Learner
from tests.service.scoring.worlds import CONFIG, Trainer, configured, scores


class World:
    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.trainer = Trainer(store)
        self.health = Health("scorer")
        self.health.started()
        self.metrics = ScorerMetrics()
        self.now = 0.0
        self.reloader = Reloader(
            store,
            poll_s=0.005,
            device="cpu",
            metrics=self.metrics,
            health=self.health,
            clock=lambda: self.now,
        )

    @property
    def version(self) -> int | None:
        return None if self.reloader.served is None else self.reloader.served.version

    @property
    def check(self) -> str:
        checks: Any = self.health.report()[1]["checks"]
        return str(checks["weights"])

    def exact(self) -> bool:
        """Whether the live weights are bit for bit those of a full load of their version."""
        served = self.reloader.served
        assert served is not None
        other = Recommender(CONFIG)
        other.apply(load(self.store, served.version, readers=True).snapshot())
        same = scores(served.recommender).tobytes() == scores(other).tobytes()
        return same and served.recommender.ids == other.ids and served.recommender.clock == other.clock


@pytest.fixture
def world() -> World:
    return World(MemoryStore())


def damage(world: World, manifest: Manifest, how: str) -> None:
    name = next(name for name in manifest.blobs if not name.startswith("trainer"))
    key = manifest.blobs[name].key
    size = manifest.blobs[name].bytes
    if how == "manifest missing":
        world.store.tamper(manifest=(manifest.version, None))
    elif how == "manifest damaged":
        world.store.tamper(manifest=(manifest.version, b"{}"))
    else:
        tampered: Mapping[str, bytes | None] = {"blob missing": None, "wrong checksum": bytes(size), "short": b"x"}
        world.store.tamper(blob=(key, tampered[how]))


def test_before_the_first_version_health_says_so(world: World) -> None:
    assert world.check == "no version yet"
    assert not world.health.report()[0]
    assert not world.reloader.check()
    assert (world.version, world.check) == (None, "no version yet")
    world.trainer.step()
    assert world.reloader.check()
    assert (world.version, world.check) == (1, "ok")
    assert world.health.report()[0]
    assert not world.reloader.check()


def test_snapshots_and_deltas_are_followed_exactly(world: World) -> None:
    for step in range(8):
        world.trainer.step(snapshot=step == 4)
        assert world.reloader.check()
        assert world.version == step + 1
        assert world.exact()
    assert world.metrics.registry.get_sample_value("tidemill_model_version") == 8


def test_two_copies_never_mix(world: World) -> None:
    rng = np.random.default_rng(5)
    for _ in range(40):
        for _ in range(rng.integers(1, 4)):  # versions that are passed over
            world.trainer.learn(int(rng.integers(1, 60)), items=int(rng.integers(20, 300)))
            world.trainer.publish(snapshot=rng.random() < 0.1)
            if rng.random() < 0.2:
                world.trainer.repeat()
        if rng.random() < 0.1:
            world.store.rollback(int(rng.integers(1, world.trainer.version + 1)), "test")
        elif rng.random() < 0.5:
            world.store.promote()
        world.reloader.check()
        assert world.version == world.store.live()
        assert world.exact()


@pytest.mark.parametrize("how", ["manifest missing", "manifest damaged", "blob missing", "wrong checksum", "short"])
def test_what_is_damaged_is_not_served_until_a_snapshot_comes(world: World, how: str) -> None:
    world.trainer.step()
    world.reloader.check()
    before = scores(world.reloader.served.recommender).tobytes() if world.reloader.served else b""
    second = world.trainer.step()
    world.trainer.step()  # stands on the one that is damaged
    damage(world, second, how)
    for _ in range(3):
        assert not world.reloader.check()
    assert world.version == 1
    assert world.reloader.served is not None
    assert scores(world.reloader.served.recommender).tobytes() == before
    assert world.check.startswith("version 3 cannot be loaded (")
    assert world.check.endswith("; serving version 1")
    assert world.metrics.registry.get_sample_value("tidemill_reload_failures_total") == 1
    reason = world.trainer.asked_for_snapshot()
    assert reason is not None
    assert reason.startswith("version 3 cannot be read: ")
    assert world.trainer.asked_for_snapshot() is None  # asked once in a while only
    world.trainer.step(snapshot=True)
    assert world.reloader.check()
    assert (world.version, world.check) == (4, "ok")
    world.trainer.step()
    assert world.reloader.check()
    assert world.exact()


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_damaged_the_weights_are_one_published_version(world: World, seed: int) -> None:
    """Damage, rollbacks and retired versions, and a trainer that forgets items, deletes some and repeats itself."""
    rng = np.random.default_rng(seed)
    trainer, store = world.trainer, world.store
    trainer.learner = Learner(configured(max_items=120))
    published: dict[int, bytes] = {}
    manifests: list[Manifest] = []

    def publish(kind: str) -> None:
        if kind != "repeat":
            gone = [ItemChange(f"i{n}", deleted=bool(n % 2), available=False) for n in rng.integers(200, size=3)]
            trainer.learn(int(rng.integers(1, 60)), items=200, catalogue=tuple(gone))
        try:
            made = trainer.repeat() if kind == "repeat" else trainer.publish(snapshot=kind == "snapshot")
        except ParentMissing:
            made = trainer.publish(snapshot=True)
        manifests.append(made)
        published[made.version] = bits(trainer.learner.snapshot())

    publish("snapshot")
    failed = 0
    for _ in range(40):
        for kind in rng.choice(["delta", "delta", "delta", "repeat", "snapshot"], rng.integers(1, 4)):
            publish(str(kind))
        chosen = manifests[-int(rng.integers(1, min(6, len(manifests)) + 1))]
        how = str(rng.choice(["", "manifest missing", "blob missing", "wrong checksum", "short", "rollback", "retire"]))
        if how == "rollback":
            with suppress(NoSuchVersion):
                store.rollback(chosen.version, "test")
        elif how == "retire":
            store.delete(set(store.versions()[:-2]) - {store.live()})
        elif how:
            damage(world, chosen, how)
        if rng.random() < 0.3:
            with suppress(NoSuchVersion):
                store.promote()
        before = world.version
        world.now += 10
        assert world.reloader.check() == (world.version != before)
        if world.reloader.served is not None:
            assert bits_of(world.reloader.served.recommender) == published[world.reloader.served.version]
        if world.version != (live := store.live()):
            failed += 1
            assert world.check.startswith(f"version {live} cannot be loaded (")
            assert trainer.asked_for_snapshot() is not None
            if rng.random() < 0.5:
                publish("snapshot")
    assert failed
    publish("snapshot")
    store.promote()
    assert world.reloader.check()
    assert world.exact()


def bits(full: Update) -> bytes:
    recommender = Recommender(CONFIG)
    recommender.apply(full)
    return bits_of(recommender)


def bits_of(recommender: Recommender) -> bytes:
    """All that lists depend on."""
    size = recommender.size
    tensors = [tensor for channel in recommender.channels for tensor in channel.tensors.values()]
    tables = [np.asarray(table.snapshot().values) for channel in recommender.channels for table in channel.tables]
    weighing = [tensor for part in recommender._weighing for tensor in part.tensors.values()]
    every = [recommender.items.listable.array[:size], *tables, *tensors, *weighing]
    return (
        b"".join(array.tobytes() for array in (*every, scores(recommender)))
        + repr((recommender.ids, recommender.clock)).encode()
    )


def test_forgotten_and_deleted_items_leave_every_way(world: World) -> None:
    """Who follows deltas, who loads a snapshot and the trainer agree on rows that were freed and given to others."""
    trainer = world.trainer
    trainer.learner = Learner(configured(max_items=50))
    reused = 0
    ids: list[str] = []
    for step in range(12):
        deleted = [ItemChange(f"i{n}", deleted=True) for n in (step, step + 20)]
        trainer.learn(40, items=40 + 20 * step, catalogue=tuple(deleted))
        trainer.publish(snapshot=step == 6)
        assert world.reloader.check()
        assert world.reloader.served is not None
        mine = world.reloader.served.recommender
        assert world.exact()
        assert bits_of(mine) == bits(trainer.learner.snapshot())
        reused += sum(old != new != "" for old, new in zip(ids, mine.ids, strict=False))
        ids = list(mine.ids)
        rows, _ = mine.top_k(np.full((1, 1), -1, np.int64), 50)
        listed = {ids[row] for row in rows[0] if row >= 0}
        assert listed
        assert not listed & {"", *(change.item_id for change in deleted)}
        assert len({name for name in ids if name}) == sum(name != "" for name in ids) <= 50
    assert reused


class _Retiring(MemoryStore):
    """Between a reader's looking up manifests and its reading of blobs, the trainer goes on and retires the old."""

    meanwhile: Callable[[], object] | None = None

    def get_blobs(self, refs: Sequence[BlobRef]) -> list[bytes | None]:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().get_blobs(refs)


@pytest.mark.parametrize("cold", [True, False])
def test_a_base_that_is_retired_while_it_is_read(cold: bool) -> None:
    store = _Retiring()
    world = World(store)
    world.trainer.step()
    if not cold:
        assert world.reloader.check()
    before = None if cold else world.version
    world.trainer.step()
    world.trainer.step()

    def retire() -> None:
        world.trainer.step(snapshot=True)
        store.delete([1, 2, 3])

    store.meanwhile = retire
    assert not world.reloader.check()
    assert world.version == before
    assert "is missing" in world.check
    assert world.trainer.asked_for_snapshot() is not None
    assert cold or world.reloader.served is not None
    assert world.reloader.check()  # the pointer has moved on
    assert (world.version, world.check) == (4, "ok")
    assert world.exact()


def test_it_asks_again_while_no_snapshot_comes(world: World) -> None:
    damage(world, world.trainer.step(), "blob missing")
    for _ in range(2):
        assert not world.reloader.check()
        assert world.trainer.asked_for_snapshot() is not None
        world.now += 4.9
        assert not world.reloader.check()
        assert world.trainer.asked_for_snapshot() is None
        world.now += 0.1
    assert world.check.endswith("; serving nothing")


def test_a_damaged_version_is_tried_again_ever_more_rarely_and_another_one_at_once() -> None:
    store = _Counting()
    world = World(store)
    world.trainer.step()
    world.reloader.check()

    def tries(seconds: float) -> list[float]:
        """When blobs were fetched, polling every 5 ms."""
        began, found = world.now, []
        while world.now - began < seconds:
            before = store.fetched
            world.reloader.check()
            if store.fetched > before:
                found.append(world.now - began)
            world.now += 0.005
        return found

    damage(world, world.trainer.step(), "wrong checksum")
    first = tries(10)
    pauses = np.diff(first)
    assert first[0] == 0
    assert pauses[:7] == pytest.approx(0.005 * 2 ** np.arange(7), abs=0.006)
    assert pauses[8:] == pytest.approx(1, abs=0.006)
    damage(world, world.trainer.step(snapshot=True), "wrong checksum")
    assert tries(0.03) == pytest.approx([0, 0.005, 0.015], abs=0.001)  # the pointer moved: from the beginning
    assert world.metrics.registry.get_sample_value("tidemill_reload_failures_total") == 2
    world.trainer.step(snapshot=True)
    assert tries(0.03) == [0]
    assert (world.version, world.check) == (4, "ok")
    assert world.exact()
    store.rollback(3, "to the damaged one")
    assert len(tries(0.03)) == 3
    store.promote()
    assert not tries(0.03)
    assert (world.version, world.check) == (4, "ok")


def test_what_is_mended_is_found_within_a_second(world: World) -> None:
    world.trainer.step()
    world.reloader.check()
    second = world.trainer.step()
    [data] = world.store.get_blobs([second.blobs["weights/0"]])
    damage(world, second, "wrong checksum")
    for _ in range(100):
        world.reloader.check()
        world.now += 0.5
    world.store.tamper(blob=(second.blobs["weights/0"].key, data))
    world.now += 0.5
    assert world.reloader.check()
    assert (world.version, world.check) == (2, "ok")
    assert world.exact()


# -- snapshots that repeat what was before ---------------------------------------------------------------------------


def test_a_snapshot_that_changes_nothing_costs_nothing() -> None:
    store = _Counting()
    world = World(store)
    for _ in range(3):
        world.trainer.step()
        world.reloader.check()
    served = world.reloader.served
    assert served is not None
    scores(served.recommender)
    shut = served.recommender._shut
    assert shut is not None
    fetched = store.fetched
    again = world.trainer.repeat(through=7)
    assert world.reloader.check()
    assert world.reloader.served is served
    assert served.manifest.version == again.version
    assert world.metrics.registry.get_sample_value("tidemill_model_version") == 4
    assert world.health.report()[1]["model_version"] == 4
    assert store.fetched == fetched
    assert served.recommender._shut is shut  # what scoring had worked out still holds
    assert world.exact()
    for step in range(4):  # and both copies go on from there
        world.trainer.step()
        if step % 2:
            world.trainer.repeat()
        assert world.reloader.check()
        assert world.version == world.trainer.version
        assert world.exact()


def test_it_heals_a_reader_that_stands_before_the_damage(world: World) -> None:
    world.trainer.step()
    world.reloader.check()
    damage(world, world.trainer.step(), "wrong checksum")
    assert not world.reloader.check()
    world.trainer.repeat()
    assert world.reloader.check()
    assert (world.version, world.check) == (3, "ok")
    assert world.exact()
    world.trainer.step()
    assert world.reloader.check()
    assert world.exact()


def test_it_is_loaded_where_its_parent_is_retired(world: World) -> None:
    for _ in range(3):
        world.trainer.step()
    world.reloader.check()
    world.trainer.step()
    world.trainer.repeat()
    world.store.delete([1, 2, 3, 4])
    assert world.reloader.check()
    assert (world.version, world.check) == (5, "ok")
    assert world.exact()


def test_rollbacks_around_one(world: World) -> None:
    for _ in range(3):
        world.trainer.step()
    world.trainer.repeat()
    world.trainer.step()
    for version in (5, 4, 3, 4, 5, 2, 4, 3, 5):
        world.store.rollback(version, "test")
        assert world.reloader.check()
        assert world.version == version
        assert world.exact()


def test_a_cold_start_takes_the_newest_that_is_whole(world: World) -> None:
    world.trainer.step()
    world.trainer.step()
    damage(world, world.trainer.step(), "wrong checksum")
    assert world.reloader.check()
    assert world.version == 2
    assert world.exact()
    assert world.check.endswith("; serving version 2")
    assert world.health.report()[1]["model_version"] == 2
    assert world.trainer.asked_for_snapshot() is not None
    world.trainer.step(snapshot=True)
    assert world.reloader.check()
    world.trainer.step()
    assert world.reloader.check()
    assert (world.version, world.check) == (5, "ok")
    assert world.exact()


@pytest.mark.parametrize("author", [None, Signer([b"another's key"])])
def test_a_version_that_the_key_did_not_sign_is_not_served(author: Signer | None) -> None:
    key = Signer([b"the trainer's key"])
    world = World(MemoryStore(signer=key))
    world.trainer.step()
    assert world.reloader.check()
    for snapshot in (False, True):
        world.store.signer = author
        made = world.trainer.step(snapshot=snapshot)
        world.store.signer = key
        assert not world.reloader.check()
        assert world.version == 1
        assert world.check.startswith(f"version {made.version} cannot be loaded (version {made.version}: ")
        assert "TIDEMILL_SIGNING_KEY" in world.check
        assert world.check.endswith("serving version 1")
        assert world.exact()
    world.trainer.step(snapshot=True)
    assert world.reloader.check()
    assert (world.version, world.check) == (4, "ok")


def test_rollback_and_forth_again(world: World) -> None:
    for _ in range(5):
        world.trainer.step()
        world.reloader.check()
    world.store.rollback(3, "bad")
    assert world.reloader.check()
    assert world.version == 3
    assert world.exact()
    world.trainer.step()  # published, and not live
    assert not world.reloader.check()
    world.store.promote()
    assert world.reloader.check()
    assert world.version == 6
    assert world.exact()


def test_a_swap_does_not_wait_for_who_scores_and_never_changes_what_they_hold(world: World) -> None:
    world.trainer.step()
    world.reloader.check()
    for version in (2, 3):  # the first delta after a cold start, and the next
        last = world.reloader.served
        assert last is not None
        with last.lock:
            before = scores(last.recommender).tobytes()
            world.trainer.step()
            world.reloader.check()
            assert (world.version, last.version) == (version, version - 1)
            assert scores(last.recommender).tobytes() == before
            assert world.exact()
    assert last is not None
    with last.lock:  # somebody is in the middle of their last group with it
        before = scores(last.recommender).tobytes()
        world.trainer.step()
        follower = threading.Thread(target=world.reloader.check)
        follower.start()
        follower.join(0.05)
        assert world.version == 3  # the update waits for the group
        assert (last.version, scores(last.recommender).tobytes()) == (2, before)
    follower.join(10)
    assert world.version == 4
    assert world.exact()


def test_a_list_is_scored_while_the_second_copy_is_made(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that takes: of a large model it is as long as loading it."""
    world.trainer.step()
    begun, go_on, applied = threading.Event(), threading.Event(), 0
    apply = Recommender.apply

    def slowly(recommender: Recommender, update: Update) -> None:
        nonlocal applied
        applied += 1
        if applied > 1:
            begun.set()
            assert go_on.wait(10)
        apply(recommender, update)

    monkeypatch.setattr(Recommender, "apply", slowly)
    monkeypatch.setattr(Recommender, "__deepcopy__", _fails, raising=False)  # it would hold the lock for too long
    follower = threading.Thread(target=world.reloader.check)
    follower.start()
    assert begun.wait(10)
    live = world.reloader.served
    assert live is not None
    assert world.check == "ok"
    assert live.lock.acquire(timeout=1)
    assert np.isfinite(scores(live.recommender)).all()
    live.lock.release()
    go_on.set()
    follower.join(10)
    world.trainer.step()
    assert world.reloader.check()
    assert applied == 3  # the delta found a second copy that lacked nothing
    assert world.exact()


def test_an_update_that_fails_half_way_leaves_no_mix(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        world.trainer.step()
        world.reloader.check()
    world.trainer.step()
    with monkeypatch.context() as patched:
        patched.setattr("service.model.recommender.Recommender.changed", _fails)
        with pytest.raises(MemoryError):
            world.reloader.check()
    assert world.version == 3
    assert world.exact()
    for version in (4, 5):
        assert world.reloader.check()
        assert world.version == version
        assert world.exact()
        world.trainer.step()


def test_a_second_copy_that_fails_leaves_the_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.trainer.step()
    with monkeypatch.context() as patched:
        patched.setattr(Reloader, "_make_spare", _fails)
        with pytest.raises(MemoryError):
            world.reloader.check()
    for version in (1, 2, 3):
        world.reloader.check()
        assert world.version == version
        assert world.exact()
        world.trainer.step()


def _fails(_: object) -> None:
    raise MemoryError


class _Counting(MemoryStore):
    fetched = 0

    def get_blobs(self, refs: Sequence[BlobRef]) -> list[bytes | None]:
        self.fetched += len(refs)
        return super().get_blobs(refs)


class _Flaky(MemoryStore):
    error: Exception | None = None
    request_fails = False

    def live(self) -> int | None:
        if self.error is not None:
            raise self.error
        return super().live()

    def request_snapshot(self, reason: str) -> None:
        if self.request_fails:
            raise StoreUnavailable("away")
        super().request_snapshot(reason)


def test_a_store_that_is_away_or_points_nowhere_changes_nothing() -> None:
    store = _Flaky()
    world = World(store)
    world.trainer.step()
    world.reloader.check()
    store.error = StoreUnavailable("away")
    assert not world.reloader.check()
    assert world.health.report()[1]["checks"] == {"redis": "away", "weights": "ok"}
    store.error = DamagedManifest("the pointer is no number")
    assert not world.reloader.check()
    assert world.check == "the pointer is no number"
    store.error = None
    assert not world.reloader.check()
    assert world.health.report()[1]["checks"] == {"redis": "ok", "weights": "ok"}
    damage(world, world.trainer.step(), "blob missing")
    store.request_fails = True
    assert not world.reloader.check()
    assert world.version == 1


def test_on_its_own_thread(world: World) -> None:
    world.reloader.start()
    try:
        for _ in range(5):
            world.trainer.step()
            end = time.monotonic() + 10
            while world.version != world.trainer.version and time.monotonic() < end:
                time.sleep(0.002)
            assert world.version == world.trainer.version
    finally:
        world.reloader.stop()
    assert world.exact()
