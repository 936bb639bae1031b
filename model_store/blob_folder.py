"""Blobs as files named by their checksum, in one folder of any fsspec filesystem. The only module that uses fsspec."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from fsspec.core import url_to_fs

from model_store.errors import ModelStoreError, StoreUnavailable

PART = ".part"  # ending of a file's name until it is whole

# In these a file appears whole or not at all, so it is written in place; and folders are only parts of names.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "memory"}

_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^*?\[\]]+")  # fsspec would take these for patterns
_PASSWORD = re.compile(r"[^/]+//[^/@]*:[^/@]*@")
_LONGEST = 900  # with a checksum appended it is a blob's key in a manifest, which has 1024 characters at most


class BlobFolder:
    """`file:///mnt/checkpoints`, `s3://bucket/checkpoints`, `memory://checkpoints` ...; the folder must exist.

    Only `<url>/<checksum>` is ever opened, and nothing is listed. Methods may block. They raise StoreUnavailable for
    any failure of the filesystem.
    """

    def __init__(self, url: str) -> None:
        """Opens nothing yet. Raises: ModelStoreError for no URL of a folder, or a filesystem that is not installed."""
        self.url = url.rstrip("/")
        if _PASSWORD.match(url):
            raise ModelStoreError("a folder's URL stands in every manifest, so it must not hold a password")
        if not _URL.fullmatch(self.url) or len(url) > _LONGEST:
            raise ModelStoreError(f"{url[:_LONGEST]!r} is no URL of a folder, such as file:///mnt/checkpoints")
        try:
            found: tuple[Any, str] = url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ModelStoreError(f"{self.url}: {error}") from error
        self._files, path = found
        self._path = path.rstrip("/")
        if not self._path:
            raise ModelStoreError(f"{self.url} is the root of a filesystem, not a folder in it")
        protocol = self._files.protocol
        self._objects = not _OBJECT_STORES.isdisjoint((protocol,) if isinstance(protocol, str) else protocol)

    def key(self, checksum: str) -> str:
        """The key of a blob, for a manifest."""
        return f"{self.url}/{checksum}"

    def put(self, checksum: str, data: bytes) -> None:
        """Writes a blob, whole or not at all. An existing one is replaced, since it may be damaged."""
        path = self._file(checksum)
        with self._reached():
            if self._objects:
                self._files.pipe_file(path, data)
            else:
                self._files.pipe_file(path + PART, data)
                self._files.mv(path + PART, path)

    def get(self, checksums: Sequence[str]) -> list[bytes | None]:
        """The stored bytes, unchecked, in the order asked for; None for a blob that is missing."""
        paths = [self._file(each) for each in checksums]
        if not paths:
            return []
        with self._reached():
            found = self._files.cat(paths, on_error="return")  # concurrently, if the filesystem can
            for data in found.values():
                if isinstance(data, Exception) and not isinstance(data, FileNotFoundError):
                    raise data
        blobs = [None if isinstance(found[path], Exception) else found[path] for path in paths]
        if None in blobs:
            self._must_be_there()
        return blobs

    def size(self, checksum: str) -> int | None:
        """The size of a blob in bytes; None if it is missing."""
        path = self._file(checksum)
        with self._reached(), suppress(FileNotFoundError):
            return int(self._files.info(path)["size"])
        self._must_be_there()
        return None

    def delete(self, checksums: Sequence[str]) -> None:
        """Removes blobs, and the partial files that a crash during `put` left. Missing ones are passed over."""
        paths = [self._file(each) for each in checksums]
        if not paths:
            return
        with self._reached():
            if self._objects:
                with suppress(FileNotFoundError):  # then one by one
                    self._files.rm(paths)  # many in one request
                    return
            for path in (each + part for each in paths for part in ("", PART)):
                with suppress(FileNotFoundError):
                    self._files.rm_file(path)
        self._must_be_there()

    def _file(self, checksum: str) -> str:
        if re.fullmatch(r"[0-9a-f]{64}", checksum) is None:
            raise ValueError(f"{checksum[:80]!r} is no checksum")
        return f"{self._path}/{checksum}"

    def _must_be_there(self) -> None:
        # on a disk that is not mounted every file is missing, and none is lost
        with self._reached():
            if not self._objects and not self._files.isdir(self._path):
                raise FileNotFoundError

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise StoreUnavailable(f"{self.url}: there is no such folder") from error
        except Exception as error:  # each filesystem has errors of its own
            what = " ".join(str(error).split()) or type(error).__name__
            raise StoreUnavailable(f"{self.url}: {what}") from error
