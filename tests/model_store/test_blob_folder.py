"""One folder, over a filesystem with real files and one whose files appear whole."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from model_store.blob_folder import PART, BlobFolder
from model_store.codec import checksum
from model_store.errors import ModelStoreError, StoreUnavailable

A, B = b"first blob", b""
SUM_A, SUM_B, NONE = checksum(A), checksum(B), "0" * 64


@pytest.fixture(params=["file", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobFolder]:
    if request.param == "file":
        yield BlobFolder(f"file://{tmp_path}/")
        return
    name = uuid.uuid4().hex
    yield BlobFolder(f"memory://{name}/checkpoints")
    memory = fsspec.filesystem("memory")
    if memory.exists(name):
        memory.rm(name, recursive=True)


def test_blobs_come_back_as_they_were_put(folder: BlobFolder) -> None:
    folder.put(SUM_A, A)
    folder.put(SUM_B, B)
    assert folder.get([SUM_B, NONE, SUM_A, SUM_A]) == [B, None, A, A]
    assert folder.get([]) == []
    assert [folder.size(each) for each in (SUM_A, SUM_B, NONE)] == [len(A), 0, None]
    folder.delete([NONE, SUM_A])
    assert folder.get([SUM_A, SUM_B]) == [None, B]
    folder.delete([SUM_A, SUM_B])
    folder.delete([])
    assert folder.get([SUM_B]) == [None]


def test_what_is_damaged_is_put_right(folder: BlobFolder) -> None:
    folder.put(SUM_A, b"cut o")
    assert folder.size(SUM_A) == 5
    folder.put(SUM_A, A)
    assert folder.get([SUM_A]) == [A]


@pytest.mark.parametrize("name", ["", "../" + "0" * 61, "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n", "/etc/passwd"])
def test_what_is_no_checksum_is_never_opened(folder: BlobFolder, name: str) -> None:
    for use in (
        lambda: folder.put(name, b""),
        lambda: folder.get([name]),
        lambda: folder.size(name),
        lambda: folder.delete([name]),
    ):
        with pytest.raises(ValueError, match="no checksum"):
            use()


def test_a_key_is_the_url_and_the_checksum(tmp_path: Path) -> None:
    folder = BlobFolder(f"file://{tmp_path}/")
    folder.put(SUM_A, A)
    assert folder.key(SUM_A) == f"file://{tmp_path}/{SUM_A}"
    assert [path.name for path in tmp_path.iterdir()] == [SUM_A]
    with fsspec.open(folder.key(SUM_A)) as file:
        assert file.read() == A


def test_a_crash_amid_writing_leaves_the_old_file_and_nothing_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = BlobFolder(f"file://{tmp_path}")
    folder.put(SUM_A, b"old")

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as amid:
        amid.setattr(folder._files, "mv", crash)
        with pytest.raises(KeyboardInterrupt):
            folder.put(SUM_A, A)
    assert folder.get([SUM_A]) == [b"old"]
    assert (tmp_path / (SUM_A + PART)).exists()
    folder.delete([SUM_A])
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_not_mounted_has_lost_nothing(tmp_path: Path) -> None:
    """Neither are its blobs missing, nor is a folder made under the mount point."""
    folder = BlobFolder(f"file://{tmp_path}/disk/checkpoints")
    for use in (
        lambda: folder.put(SUM_A, A),
        lambda: folder.get([SUM_A]),
        lambda: folder.size(SUM_A),
        lambda: folder.delete([SUM_A]),
    ):
        with pytest.raises(StoreUnavailable, match=r"disk/checkpoints: there is no such folder"):
            use()
    assert not list(tmp_path.iterdir())
    (tmp_path / "disk" / "checkpoints").mkdir(parents=True)
    folder.put(SUM_A, A)
    assert folder.get([SUM_A]) == [A]


def test_whatever_goes_wrong_is_that_the_store_is_away(folder: BlobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(Exception):
        pass

    def fail(*_: Any, **__: Any) -> None:
        raise Odd

    for name in ("pipe_file", "cat_file", "info", "rm", "rm_file"):
        monkeypatch.setattr(folder._files, name, fail)
    for use in (
        lambda: folder.put(SUM_A, A),
        lambda: folder.get([SUM_A]),
        lambda: folder.size(SUM_A),
        lambda: folder.delete([SUM_A]),
    ):
        with pytest.raises(StoreUnavailable, match=f"^{folder.url}: Odd$"):
            use()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("/mnt/checkpoints", "no URL of a folder"),
        ("checkpoints", "no URL of a folder"),
        ("file://", "no URL of a folder"),
        ("file:///", "no URL of a folder"),
        ("memory://", "no URL of a folder"),
        ("file:///mnt/*", "no URL of a folder"),
        ("file:///" + "x" * 1000, "no URL of a folder"),
        ("nothing://there/is", "nothing"),
        ("s3://bucket/folder", "s3fs"),
        ("ftp://me:hush@host/folder", "must not hold a password"),
    ],
)
def test_what_is_no_folder(url: str, says: str) -> None:
    with pytest.raises(ModelStoreError, match=says) as raised:
        BlobFolder(url)
    assert "hush" not in str(raised.value)
