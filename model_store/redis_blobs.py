"""Where blobs lie: in Redis, those that only trainers read in a folder if there is one.

A blob is written before the version that names it, and is removed after the last one that did. In Redis one that no
version names has a time to live. A file has none: it is noted as dropped before it is written, and the note goes when a
version names it. So whatever dies in between, nothing is left over for good.
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

UNPUBLISHED_SECONDS = 3600  # a trainer that dies between blobs and manifest leaves nothing behind for longer
_BYTES_AT_ONCE = 64 << 20  # in one round trip; neither side should buffer gigabytes


class RedisBlobs:
    """What ModelStore says of blobs, and the two steps around a version: `claim` before it, `drop` after it."""

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
        # written even where it is: what lies there may be damaged. A blob that a version names has no time to live
        # (-1) and must not be given one
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
        # the whole key is compared: nobody who writes a manifest can have another path opened
        return self.folder is not None and ref.key == self.folder.key(ref.checksum)

    # -- around a version --------------------------------------------------------------------------------------------

    def claim(self, blobs: Mapping[str, BlobRef]) -> list[BlobRef]:
        """Sees that what a version is to name is here, and keeps it; returns what must be given to `unclaim` if the
        version does not come to be. Raises: BlobMissing, with nothing claimed."""
        for name, ref in blobs.items():
            if self.folder is not None and self._is_file(ref) and self.folder.size(ref.checksum) != ref.bytes:
                raise BlobMissing(f"blob {name} is not in {self.folder.url}")
        # only blobs that this store keeps; others may come to lie elsewhere
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
        self._redis.pipeline([("EXPIRE", ref.key, UNPUBLISHED_SECONDS) for ref in refs])

    def drop(self) -> None:
        """Removes the blobs that versions have let go of. Those left over from a crash amid it come along, and files
        that were put and never published."""
        dropped = sorted(self._redis.call("SMEMBERS", self._keys.dropped))
        if not dropped:
            return
        # this model among them: a file that was put again, for a version that never came, may be named by another
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
    """The commands in runs of some megabytes (of values sent or answered) each; none for none."""
    parts: list[list[Command]] = []
    weight = _BYTES_AT_ONCE
    for command, size in zip(commands, sizes, strict=True):
        if weight >= _BYTES_AT_ONCE:
            parts.append([])
            weight = 0
        parts[-1].append(command)
        weight += size
    return parts
