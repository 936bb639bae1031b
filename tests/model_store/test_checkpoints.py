"""A store in Redis whose trainer's blobs lie in a folder: what goes there, and that nothing stays that nobody names."""

from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_store.blob_folder import BlobFolder
from model_store.chain import load, newest_whole, updates_between
from model_store.errors import BlobMissing, DamagedBlob, LeaseLost, StoreUnavailable
from model_store.keys import Keys
from model_store.lease import Lease
from model_store.redis_connection import RedisConnection
from model_store.redis_store import RedisStore
from model_store.version import BlobRef
from tests.model_store.worlds import assert_same, encoded, manifest, publish, small, state_of


@pytest.fixture
def store(connection: RedisConnection, tmp_path: Path) -> RedisStore:
    return RedisStore(connection, folder=BlobFolder(f"file://{tmp_path}"), linger=0)


def trainer(store: RedisStore) -> Lease:
    lease = store.acquire("trainer", 60)
    assert lease is not None
    return lease


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def trainers(store: RedisStore, *versions: int) -> set[str]:
    """The checksums of the trainer's blobs of some versions."""
    found = store.manifests(versions)
    return {ref.checksum for each in found if each for name, ref in each.blobs.items() if name.startswith("trainer/")}


def in_redis(connection: RedisConnection) -> set[str]:
    return {key.decode() for key in connection.call("KEYS", "tidemill:blob:*")}


def test_trainers_blobs_go_to_the_folder_and_all_others_to_redis(
    store: RedisStore, connection: RedisConnection, tmp_path: Path
) -> None:
    made = publish(store, trainer(store), 1, None, small())
    apart, here = made.blobs["trainer/0"], made.blobs["weights/0"]
    assert apart.key == f"file://{tmp_path}/{apart.checksum}"
    assert (tmp_path / apart.checksum).stat().st_size == apart.bytes
    assert files(tmp_path) == {apart.checksum}
    assert in_redis(connection) == {here.key}
    assert_same(load(store, 1).snapshot(), state_of([small()]).snapshot())
    # whoever needs only the weights needs no folder
    reader = RedisStore(connection)
    assert updates_between(reader, None, 1)


def test_an_installation_can_begin_with_a_folder_at_any_time(store: RedisStore, connection: RedisConnection) -> None:
    lease = trainer(store)
    publish(RedisStore(connection), lease, 1, None, small(1))
    publish(store, lease, 2, 1, small(2, full=False))
    assert_same(load(store, 2).snapshot(), state_of([small(1), small(2, full=False)]).snapshot())


def test_a_folder_where_files_appear_whole(connection: RedisConnection) -> None:
    store = RedisStore(connection, folder=BlobFolder("memory://tidemill-test-checkpoints"), linger=0)
    lease = trainer(store)
    made = publish(store, lease, 1, None, small(1))
    publish(store, lease, 2, None, small(2))
    assert made.blobs["trainer/0"].key.startswith("memory://tidemill-test-checkpoints/")
    assert_same(load(store, 1).snapshot(), state_of([small(1)]).snapshot())
    store.put_blobs(encoded(small(3)))
    store.delete([1], lease=lease)
    memory = fsspec.filesystem("memory")
    assert {path.rpartition("/")[2] for path in memory.ls("tidemill-test-checkpoints", detail=False)} == trainers(
        store, 2
    )
    memory.rm("tidemill-test-checkpoints", recursive=True)


def test_without_the_folder_the_error_says_what_is_not_set(
    store: RedisStore, connection: RedisConnection, tmp_path: Path
) -> None:
    publish(store, trainer(store), 1, None, small())
    bare = RedisStore(connection)
    with pytest.raises(DamagedBlob, match=r"trainer/0 .* is missing: .*TIDEMILL_CHECKPOINT_URL is not set"):
        load(bare, 1)
    assert newest_whole(bare) is None
    (tmp_path / "other").mkdir()
    other = RedisStore(connection, folder=BlobFolder(f"file://{tmp_path}/other"))
    with pytest.raises(DamagedBlob, match=r"trainer/0 .* is missing: TIDEMILL_CHECKPOINT_URL is file://.*/other"):
        load(other, 1)


def test_a_manifest_cannot_have_another_path_opened(store: RedisStore, tmp_path: Path) -> None:
    """Neither read, nor measured, nor removed."""
    inside = tmp_path / "inside"
    inside.mkdir()
    store = RedisStore(store._redis, folder=BlobFolder(f"file://{inside}"), linger=0)
    lease = trainer(store)
    data = b"a secret"
    ref = RedisStore(store._redis).put_blobs({"x": data})["x"]
    sum_ = ref.checksum
    outside = [
        tmp_path / "secret",
        tmp_path / sum_,
        inside / "secret",
        inside / sum_.upper(),
        inside / (sum_ + ".part"),
    ]
    for path in outside:
        path.write_bytes(data)
    keys = [
        *(f"file://{path}" for path in outside),
        f"file://{inside}/../{sum_}",
        f"file://{inside}/./{sum_}",
        f"file://{inside}//{sum_}",
        f"file:{inside}/{sum_}",
        f"{inside}/{sum_}",
        f"local://{inside}/{sum_}",
        f"{sum_}",
    ]
    refs = [BlobRef(key=key, bytes=len(data), checksum=sum_) for key in keys]
    assert store.get_blobs(refs) == [None] * len(refs)
    store.publish(manifest(1, blobs={f"trainer/{number}": each for number, each in enumerate(refs)}), lease)
    publish(store, lease, 2, None, small())
    store.delete([1])
    assert {path for path in outside if path.exists()} == {*outside} - {inside / (sum_ + ".part")}
    # and a right key with another checksum is another's
    other = store.manifest(2).blobs["trainer/0"]
    assert store.get_blobs([BlobRef(key=other.key, bytes=other.bytes, checksum="0" * 64)]) == [None]


def test_a_version_needs_its_files(store: RedisStore, tmp_path: Path) -> None:
    lease = trainer(store)
    refs = store.put_blobs(encoded(small()))
    file = tmp_path / refs["trainer/0"].checksum
    for data in (None, b"cut o"):
        file.unlink() if data is None else file.write_bytes(data)
        with pytest.raises(BlobMissing, match="trainer/0"):
            store.publish(manifest(1, blobs=refs), lease)
    assert store.newest() is None
    store.publish(manifest(1, blobs=store.put_blobs(encoded(small()))), lease)


def test_a_folder_that_is_away_is_waited_for(store: RedisStore, tmp_path: Path) -> None:
    lease = trainer(store)
    publish(store, lease, 1, None, small(1))
    publish(store, lease, 2, None, small(2))
    refs = store.put_blobs(encoded(small(3)))
    away = tmp_path.with_name(tmp_path.name + "-away")
    tmp_path.rename(away)
    for use in (
        lambda: store.put_blobs(encoded(small(3))),
        lambda: store.publish(manifest(3, blobs=refs), lease),
        lambda: load(store, 2),
        lambda: store.delete([1]),
    ):
        with pytest.raises(StoreUnavailable, match="there is no such folder"):
            use()
    assert store.versions() == [2]
    away.rename(tmp_path)
    store.publish(manifest(3, blobs=refs), lease)
    load(store, 2)
    assert files(tmp_path) > trainers(store, 2, 3)
    store.delete([])  # what could not be removed then is removed now
    assert files(tmp_path) == trainers(store, 2, 3)


def test_what_a_trainer_left_that_died_before_the_manifest_goes(store: RedisStore, tmp_path: Path) -> None:
    lease = trainer(store)
    publish(store, lease, 1, None, small(1))
    store.put_blobs(encoded(small(8)))  # and here it died
    left = files(tmp_path) - trainers(store, 1)
    assert len(left) == 1
    (tmp_path / (left.pop() + ".part")).write_bytes(b"hal")  # or in the middle of it
    store.release(lease)
    lease = trainer(store)
    publish(store, lease, 2, None, small(2))
    store.delete([1], lease=lease)
    assert files(tmp_path) == trainers(store, 2)


def test_a_refused_version_leaves_its_files_to_go(store: RedisStore, tmp_path: Path) -> None:
    stale = trainer(store)
    publish(store, stale, 1, None, small(1))
    store.release(stale)
    refs = store.put_blobs(encoded(small(2)))
    with pytest.raises(LeaseLost):
        store.publish(manifest(2, blobs=refs), stale)
    store.put_blobs(encoded(small(1)))  # what a version names is put again by somebody, for nothing
    lease = trainer(store)
    store.delete([], lease=lease)
    assert files(tmp_path) == trainers(store, 1)
    load(store, 1)


def test_an_answer_that_was_lost_costs_no_file(store: RedisStore, tmp_path: Path) -> None:
    """The same version is put and published twice; the second time as the first had not been."""
    lease = trainer(store)
    publish(store, lease, 1, None, small(1))
    publish(store, lease, 1, None, small(1))
    store.delete([])
    assert files(tmp_path) == trainers(store, 1)
    publish(store, lease, 2, None, small(2))
    store.delete([1])
    assert files(tmp_path) == trainers(store, 2)


def test_models_share_a_folder(store: RedisStore, connection: RedisConnection, tmp_path: Path) -> None:
    other = RedisStore(connection, Keys(model="other"), folder=store.blobs.folder, linger=0)
    for each in (store, other):
        lease = trainer(each)
        publish(each, lease, 1, None, small(1))
        publish(each, lease, 2, None, small(2))
    other.delete([1])
    load(store, 1)
    store.delete([1])
    assert files(tmp_path) == trainers(store, 2) == trainers(other, 2)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
def test_after_each_deletion_there_are_the_files_that_versions_name_and_no_others(
    connection: RedisConnection, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Publishing, dying before the manifest, deleting, dying amid deleting; few different blobs, so many are shared."""
    connection.call("FLUSHALL")
    tmp_path = tmp_path_factory.mktemp("folder")
    store = RedisStore(connection, folder=BlobFolder(f"file://{tmp_path}"), linger=0)
    lease, newest, held = trainer(store), 0, dict[int, set[int]]()
    digests = {pick: store.put_blobs({"trainer/0": b"blob %d" % pick})["trainer/0"].checksum for pick in range(4)}
    picks = st.lists(st.integers(0, 3), max_size=3)
    for _ in range(data.draw(st.integers(0, 12))):
        match data.draw(st.sampled_from(["publish", "put", "delete", "crash"])):
            case "publish":
                newest, chosen = newest + 1, data.draw(picks)
                refs = store.put_blobs({f"trainer/{n}": b"blob %d" % pick for n, pick in enumerate(chosen)})
                store.publish(manifest(newest, blobs=refs), lease)
                held[newest] = set(chosen)
            case "put":
                store.put_blobs({f"trainer/{n}": b"blob %d" % pick for n, pick in enumerate(data.draw(picks))})
            case what:
                gone = {version for version in data.draw(st.lists(st.integers(1, 12), max_size=4)) if version < newest}
                with pytest.MonkeyPatch.context() as crash:
                    if what == "crash":
                        crash.setattr(store.blobs, "drop", lambda: None)
                    store.delete(gone, lease=lease)
                held = {version: chosen for version, chosen in held.items() if version not in gone}
                named = {digests[pick] for chosen in held.values() for pick in chosen}
                assert files(tmp_path) == named if what == "delete" else files(tmp_path) >= named
