import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from model_store.chain import load
from model_store.errors import DamagedManifest, StoreUnavailable
from model_store.memory_store import MemoryStore
from model_store.signature import Signer
from model_store.version import Manifest
from service.health import Health
from service.metrics import ScorerMetrics
from service.model.recommender import Recommender
from service.scoring import reloader as module
from service.scoring.reloader import Reloader
from tests.service.scoring.worlds import Trainer, scores

pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")


class World:
    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.trainer = Trainer(store)
        self.health = Health("scorer")
        self.health.started()
        self.metrics = ScorerMetrics()
        self.reloader = Reloader(store, poll_s=0.005, device="cpu", metrics=self.metrics, health=self.health)

    @property
    def version(self) -> int | None:
        return None if self.reloader.weights is None else self.reloader.weights.version

    @property
    def check(self) -> str:
        checks: Any = self.health.report()[1]["checks"]
        return str(checks["weights"])

    def exact(self) -> bool:
        """Whether the live weights are bit for bit those of a full load of their version."""
        weights = self.reloader.weights
        assert weights is not None
        other = Recommender()
        other.load(load(self.store, weights.version, readers=True).snapshot())
        same = scores(weights.recommender).tobytes() == scores(other).tobytes()
        return same and weights.recommender.ids == other.ids and weights.recommender.clock == other.clock


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
    before = scores(world.reloader.weights.recommender).tobytes() if world.reloader.weights else b""
    second = world.trainer.step()
    world.trainer.step()  # stands on the one that is damaged
    damage(world, second, how)
    for _ in range(3):
        assert not world.reloader.check()
    assert world.version == 1
    assert world.reloader.weights is not None
    assert scores(world.reloader.weights.recommender).tobytes() == before
    assert world.check.startswith("version 3 cannot be loaded (")
    assert world.check.endswith("; serving version 1")
    assert world.metrics.registry.get_sample_value("tidemill_reload_failures_total") == 1
    reason = world.store.take_snapshot_request()
    assert reason is not None
    assert reason.startswith("version 3 cannot be read: ")
    assert world.store.take_snapshot_request() is None  # asked once in a while only
    world.trainer.step(snapshot=True)
    assert world.reloader.check()
    assert (world.version, world.check) == (4, "ok")
    world.trainer.step()
    assert world.reloader.check()
    assert world.exact()


def test_it_asks_again_while_no_snapshot_comes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_AGAIN_S", 0.0)
    damage(world, world.trainer.step(), "blob missing")
    for _ in range(2):
        assert not world.reloader.check()
        assert world.store.take_snapshot_request() is not None
    assert world.check.endswith("; serving nothing")


def test_a_cold_start_takes_the_newest_that_is_whole(world: World) -> None:
    world.trainer.step()
    world.trainer.step()
    damage(world, world.trainer.step(), "wrong checksum")
    assert world.reloader.check()
    assert world.version == 2
    assert world.exact()
    assert world.check.endswith("; serving version 2")
    assert world.health.report()[1]["model_version"] == 2
    assert world.store.take_snapshot_request() is not None
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
    old = world.reloader.weights
    assert old is not None
    with old.lock:
        before = scores(old.recommender).tobytes()
        world.trainer.step()
        follower = threading.Thread(target=world.reloader.check)
        # the first delta is applied to a copy, for which the lock is needed once
        follower.start()
        follower.join(0.1)
        assert follower.is_alive()
        assert scores(old.recommender).tobytes() == before
    follower.join(10)
    assert world.version == 2
    newer = world.reloader.weights
    assert newer is not None
    world.trainer.step()
    with newer.lock:  # who holds the live ones holds nobody up: the spare is written
        assert world.reloader.check()
        assert (world.version, newer.version) == (3, 2)
    third = world.reloader.weights
    assert third is old
    with newer.lock:
        before = scores(newer.recommender).tobytes()
        world.trainer.step()
        follower = threading.Thread(target=world.reloader.check)
        follower.start()
        follower.join(0.1)
        assert world.version == 3  # the update waits for the last group
        assert (newer.version, scores(newer.recommender).tobytes()) == (2, before)
    follower.join(10)
    assert world.version == 4
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
    assert world.reloader.check()
    assert world.version == 4
    assert world.exact()


def _fails(_: Recommender) -> None:
    raise MemoryError


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
