"""Stores blobs: in Redis, or, if there is a folder, those that only trainers read in that folder.

A blob is written before the first version that names it, and removed after the last one. So that a crash in between
leaves nothing behind, a value in Redis that no version names has a time to live. A file cannot have one: its checksum
is put into the set `dropped` before it is written, and taken out when a version names it.
"""

from collections.abc import Mapping, Sequence
from itertools import chain

from model_store.blob_folder import BlobFolder
from model_store.codec import checksum
from model_store.errors import BlobMissing
from model_store.keys import Keys
from model_store.redis_connection import Command, RedisConnection
from model_store.version import BlobRef
from model_store.weights import TRAINER

UNPUBLISHED_SECONDS = 3600  # time to live of a value that no version names yet
_BYTES_AT_ONCE = 64 << 20  # in one round trip; neither side should buffer gigabytes


class RedisBlobs:
    """The blobs of a RedisStore. `claim` is called before a version is published, `drop` after one is deleted."""

    def __init__(self, connection: RedisConnection, keys: Keys, folder: BlobFolder | None, linger: int) -> None:
        """linger: seconds that a dropped value stays readable."""
        self.folder = folder
        self._redis, self._keys, self._linger = connection, keys, linger

    # -- bytes -------------------------------------------------------------------------------------------------------

    def put(self, blobs: Mapping[str, bytes]) -> dict[str, BlobRef]:
        refs = {}
        for name, data in blobs.items():
            digest = checksum(data)
            into = self.folder.key if self.folder is not None and name.startswith(TRAINER) else self._keys.blob
            refs[name] = BlobRef(key=into(digest), bytes=len(data), checksum=digest)
        self._put_files({ref.checksum: blobs[name] for name, ref in refs.items() if self._is_file(ref)})
        self._put_values({ref.key: blobs[name] for name, ref in refs.items() if not self._is_file(ref)})
        return refs

    def get(self, refs: Sequence[BlobRef]) -> list[bytes | None]:
        files = [ref.checksum for ref in refs if self._is_file(ref)]
        from_folder = iter(self.folder.get(files) if self.folder is not None else ())
        from_redis = iter(self._get_values([ref for ref in refs if not self._is_file(ref)]))
        return [next(from_folder if self._is_file(ref) else from_redis) for ref in refs]

    def why_missing(self, ref: BlobRef) -> str:
        if "://" not in ref.key:
            return ""
        if self.folder is None:
            return ": it lies in a folder, and TIDEMILL_CHECKPOINT_URL is not set"
        return "" if self._is_file(ref) else f": TIDEMILL_CHECKPOINT_URL is {self.folder.url}, and no other is read"

    def _put_files(self, files: Mapping[str, bytes]) -> None:
        if self.folder is not None and files:
            self._redis.call("SADD", self._keys.dropped, *files)
            for digest, data in files.items():
                self.folder.put(digest, data)

    def _put_values(self, values: Mapping[str, bytes]) -> None:
        left = self._redis.pipeline([("TTL", key) for key in values])
        # An existing value is written again, since it may be damaged. A blob that a version names has no time to live
        # (TTL answers -1), and must not be given one.
        commands: list[Command] = [
            ("SET", key, data) + (() if ttl == -1 else ("EX", UNPUBLISHED_SECONDS))
            for (key, data), ttl in zip(values.items(), left, strict=True)
        ]
        for part in _parts(commands, [len(data) for data in values.values()]):
            self._redis.pipeline(part)

    def _get_values(self, refs: Sequence[BlobRef]) -> list[bytes | None]:
        parts = _parts([("GET", ref.key) for ref in refs], [ref.bytes for ref in refs])
        return list(chain.from_iterable(self._redis.pipeline(part) for part in parts))

    def _is_file(self, ref: BlobRef) -> bool:
        # the whole key is compared, so that no manifest can make us open another path
        return self.folder is not None and ref.key == self.folder.key(ref.checksum)

    # -- around a version --------------------------------------------------------------------------------------------

    def claim(self, blobs: Mapping[str, BlobRef]) -> list[BlobRef]:
        """Checks that every blob is stored, and removes its time to live. Returns the blobs to give to `unclaim` if the
        version is not published. Raises: BlobMissing, with nothing claimed."""
        for name, ref in blobs.items():
            if self.folder is not None and self._is_file(ref) and self.folder.size(ref.checksum) != ref.bytes:
                raise BlobMissing(f"blob {name} is not in {self.folder.url}")
        # only blobs that are kept in this Redis
        values = {name: ref for name, ref in blobs.items() if ref.key == self._keys.blob(ref.checksum)}
        answers = self._redis.pipeline(
            [*(("PERSIST", ref.key) for ref in values.values()), *(("STRLEN", ref.key) for ref in values.values())]
        )
        claimed = [ref for ref, done in zip(values.values(), answers, strict=False) if done]
        for (name, ref), length in zip(values.items(), answers[len(values) :], strict=True):
            if length != ref.bytes:
                self.unclaim(claimed)
                raise BlobMissing(f"blob {name} is not in the store")
        return claimed

    def unclaim(self, refs: Sequence[BlobRef]) -> None:
        """Gives claimed blobs their time to live again."""
        self._redis.pipeline([("EXPIRE", ref.key, UNPUBLISHED_SECONDS) for ref in refs])

    def drop(self) -> None:
        """Removes the blobs of the set `dropped`: those that no version names any more, those that a crash during an
        earlier call left, and files that were put and never published."""
        dropped = sorted(self._redis.call("SMEMBERS", self._keys.dropped))
        if not dropped:
            return
        # every model, this one too: a file that was put again, and not published again, may be named by a version
        models = {self._keys.model, *(name.decode() for name in self._redis.call("SMEMBERS", self._keys.models))}
        counts = self._redis.pipeline(
            [("HMGET", Keys(model=name, prefix=self._keys.prefix).references, *dropped) for name in sorted(models)]
        )
        named = {digest for each in counts for digest, count in zip(dropped, each, strict=True) if count is not None}
        gone = [digest.decode() for digest in dropped if digest not in named]
        self._redis.pipeline([("EXPIRE", self._keys.blob(digest), self._linger) for digest in gone])  # 0: at once
        if self.folder is not None:
            self.folder.delete(gone)
        self._redis.call("SREM", self._keys.dropped, *dropped)


def _parts(commands: Sequence[Command], sizes: Sequence[int]) -> list[list[Command]]:
    """The commands in runs of about 64 MB of values (sent or answered) each."""
    parts: list[list[Command]] = []
    weight = _BYTES_AT_ONCE
    for command, size in zip(commands, sizes, strict=True):
        if weight >= _BYTES_AT_ONCE:
            parts.append([])
            weight = 0
        parts[-1].append(command)
        weight += size
    return parts
