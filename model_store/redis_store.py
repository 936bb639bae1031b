"""A model store in Redis. keys.py says what each key holds; every atomic step is a script of redis_scripts.py."""

import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from model_store import redis_scripts as scripts
from model_store.blob_folder import BlobFolder
from model_store.errors import (
    BlobMissing,
    DamagedManifest,
    LeaseLost,
    NoSuchVersion,
    ParentMissing,
    StillNeeded,
    VersionExists,
)
from model_store.keys import Keys
from model_store.lease import Lease
from model_store.redis_blobs import RedisBlobs
from model_store.redis_connection import RedisConnection
from model_store.signature import Signer
from model_store.store import CHALLENGER, CHAMPION, LOG_ENTRIES, LogEntry, ModelStore
from model_store.version import BlobRef, Manifest, Summary

LINGER_SECONDS = 60  # a blob stays readable so long after its last version is deleted, for readers still loading it
RETIRED_MANIFESTS = 50_000  # those of about two hours, 25 MB
_REASON = 1000  # characters of a reason that the log keeps
_PAGE = 1000  # log entries read at once


class RedisStore(ModelStore):
    """See ModelStore. Times are those of the Redis server.

    folder: where blobs under `trainer/` are stored; without one they are in Redis like all others.
    linger: seconds that a dropped blob stays readable; 0 removes it at once. Files are always removed at once.
    """

    def __init__(
        self,
        connection: RedisConnection,
        keys: Keys | None = None,
        *,
        signer: Signer | None = None,
        folder: BlobFolder | None = None,
        linger: int = LINGER_SECONDS,
        log_entries: int = LOG_ENTRIES,
        retired_manifests: int = RETIRED_MANIFESTS,
    ) -> None:
        self.keys = keys or Keys()
        self.signer = signer
        self._redis = connection
        self.blobs = RedisBlobs(connection, self.keys, folder, linger)
        self._log_entries = log_entries
        self._retired_manifests = retired_manifests
        self._publish = connection.script(scripts.PUBLISH)
        self._move = connection.script(scripts.MOVE)
        self._delete = connection.script(scripts.DELETE)
        self._acquire = connection.script(scripts.ACQUIRE)
        self._renew = connection.script(scripts.RENEW)
        self._release = connection.script(scripts.RELEASE)
        self._take_request = connection.script(scripts.TAKE_REQUEST)
        # one thread must not drop a blob that another is publishing; the lease keeps other processes out
        self._writing = threading.Lock()

    # -- blobs -------------------------------------------------------------------------------------------------------

    def put_blobs(self, blobs: Mapping[str, bytes]) -> dict[str, BlobRef]:
        return self.blobs.put(blobs)

    def get_blobs(self, refs: Sequence[BlobRef]) -> list[bytes | None]:
        return self.blobs.get(refs)

    def why_missing(self, ref: BlobRef) -> str:
        return self.blobs.why_missing(ref)

    # -- versions ----------------------------------------------------------------------------------------------------

    def publish(self, manifest: Manifest, lease: Lease) -> None:
        keys, version, summary = self.keys, manifest.version, manifest.summary()
        with self._writing:
            try:
                claimed = self.blobs.claim(manifest.blobs)
            except BlobMissing as error:
                raise BlobMissing(f"version {version}: {error}") from None
            command = self._publish.command(
                [
                    keys.lease_token,
                    keys.newest,
                    keys.versions,
                    keys.summaries,
                    keys.references,
                    keys.dropped,
                    keys.log,
                    keys.manifest(version),
                    keys.manifest(manifest.parent or 0),
                ],
                [
                    lease.token,
                    version,
                    manifest.kind,
                    self.written(manifest),
                    summary.to_text(),
                    self._log_entries,
                    *summary.checksums,
                ],
            )
            _, answer = self._redis.pipeline([("SADD", keys.models, keys.model), command])
            if answer != b"ok":
                self.blobs.unclaim(claimed)
        if answer == b"lease":
            raise self._lost(lease)
        if answer == b"exists":
            raise VersionExists(f"version {version} is not above the newest")
        if answer == b"parent":
            raise ParentMissing(f"version {version}: its parent {manifest.parent} is not in the store")

    def newest(self) -> int | None:
        return self._number(self.keys.newest)

    def versions(self) -> list[int]:
        return [int(version) for version in self._redis.call("ZRANGE", self.keys.versions, 0, -1)]

    def summaries(self) -> list[Summary]:
        found: dict[bytes, bytes] = self._redis.call("HGETALL", self.keys.summaries)
        return [
            Summary.from_text(version, text)
            for version, text in sorted(
                (int(version), text.decode(errors="replace")) for version, text in found.items()
            )
        ]

    def manifest_bytes(self, versions: Sequence[int]) -> list[bytes | None]:
        return self._redis.pipeline([("GET", self.keys.manifest(version)) for version in versions])

    def delete(self, versions: Iterable[int], *, lease: Lease | None = None) -> None:
        keys = self.keys
        chosen = sorted(set(versions))
        with self._writing:
            self._remember(chosen)
            answer, *which = self._redis.call(
                *self._delete.command(
                    [
                        keys.lease_token,
                        keys.newest,
                        keys.live,
                        keys.aliases,
                        keys.versions,
                        keys.summaries,
                        keys.references,
                        keys.dropped,
                    ],
                    [
                        "" if lease is None else lease.token,
                        keys.alias_prefix,
                        keys.manifest_prefix,
                        *chosen,
                    ],
                )
            )
            if answer == b"needed":
                raise StillNeeded(f"version {int(which[0])} is live, newest or under an alias")
            if answer == b"lease" and lease is not None:
                raise self._lost(lease)
            self.blobs.drop()

    def retired_manifest_bytes(self, versions: Sequence[int]) -> list[bytes | None]:
        if not versions:
            return []
        found: list[bytes | None] = self._redis.call("HMGET", self.keys.retired, *versions)
        return [None if data is None else _inflated(data) for data in found]

    def _remember(self, versions: Sequence[int]) -> None:
        """Keeps the manifests of versions that are about to be deleted, and removes the oldest of those kept."""
        found = zip(versions, self.manifest_bytes(versions), strict=True)
        kept = [word for version, data in found if data is not None for word in (version, zlib.compress(data))]
        if not kept:
            return
        _, held = self._redis.pipeline([("HSET", self.keys.retired, *kept), ("HLEN", self.keys.retired)])
        if held > self._retired_manifests:
            oldest = sorted(int(version) for version in self._redis.call("HKEYS", self.keys.retired))
            self._redis.call("HDEL", self.keys.retired, *oldest[: held - self._retired_manifests])

    # -- the live pointer and other aliases --------------------------------------------------------------------------

    def live(self) -> int | None:
        return self._number(self.keys.live)

    def aliases(self) -> dict[str, int]:
        names = [CHAMPION, *sorted(name.decode() for name in self._redis.call("SMEMBERS", self.keys.aliases))]
        found = self._redis.pipeline([("GET", self.keys.alias(name)) for name in names])
        return {name: _as_number(name, data) for name, data in zip(names, found, strict=True) if data is not None}

    def pinned(self) -> int | None:
        return self._number(self.keys.pinned)

    def pinned_since(self) -> float | None:
        milliseconds = self._number(self.keys.pinned_at)
        return None if milliseconds is None else milliseconds / 1000

    def move(self, version: int, reason: str, *, alias: str = CHAMPION, lease: Lease | None = None) -> bool:
        return self._point("move", version, reason, alias, lease)

    def rollback(self, version: int, reason: str) -> None:
        self.head(version)
        self._point("rollback", version, reason)

    def promote(self, version: int | None = None, reason: str = "", *, lease: Lease | None = None) -> int:
        # a version published between the two steps goes live by the trainer, since nothing is pinned then
        chosen = version if version is not None else self.newest()
        if chosen is None:
            raise NoSuchVersion("no version has been published")
        self.head(chosen)
        self._point("promote", chosen, reason, lease=lease)
        return chosen

    def _point(self, what: str, version: int, reason: str, alias: str = CHAMPION, lease: Lease | None = None) -> bool:
        keys = self.keys
        answer = self._redis.call(
            *self._move.command(
                [
                    keys.lease_token,
                    keys.pinned,
                    keys.pinned_at,
                    keys.alias(alias),
                    keys.alias(CHALLENGER),
                    keys.aliases,
                    keys.log,
                    keys.manifest(version),
                ],
                ["" if lease is None else lease.token, what, alias, version, reason[:_REASON], self._log_entries],
            )
        )
        if answer == b"lease" and lease is not None:
            raise self._lost(lease)
        if answer == b"missing":
            raise NoSuchVersion(f"version {version} is not in the store")
        return bool(answer == b"ok")

    # -- the log -----------------------------------------------------------------------------------------------------

    def log(self, limit: int = 100) -> list[LogEntry]:
        return [_entry(*raw) for raw in self._redis.call("XREVRANGE", self.keys.log, "+", "-", "COUNT", limit)]

    def live_at(self, time: float) -> int | None:
        return next((entry.version for entry in self._log_back(str(int(time * 1000))) if entry.moved_live), None)

    def live_since(self, time: float) -> set[int]:
        found: set[int] = set()
        for entry in self._log_back("+"):
            if entry.moved_live:
                found.add(entry.version)
                if entry.time <= time:
                    break
        return found

    def _log_back(self, end: str) -> Iterator[LogEntry]:
        """The log from `end` (an id of the stream) back to its beginning."""
        while raw := self._redis.call("XREVRANGE", self.keys.log, end, "-", "COUNT", _PAGE):
            yield from (_entry(*each) for each in raw)
            end = "(" + raw[-1][0].decode()

    # -- readers' wishes ---------------------------------------------------------------------------------------------

    def request_snapshot(self, reason: str) -> None:
        self._redis.call("SET", self.keys.snapshot_requested, reason[:_REASON], "NX")

    def take_snapshot_request(self, lease: Lease) -> str | None:
        keys = [self.keys.lease_token, self.keys.snapshot_requested]
        answer, *reason = self._redis.call(*self._take_request.command(keys, [lease.token]))
        if answer == b"lease":
            raise self._lost(lease)
        return reason[0].decode(errors="replace") if reason and reason[0] is not None else None

    # -- the lease ---------------------------------------------------------------------------------------------------

    def acquire(self, holder: str, ttl: float) -> Lease | None:
        token = self._redis.call(
            *self._acquire.command([self.keys.lease, self.keys.lease_token], [holder, _milliseconds(ttl)])
        )
        return None if token is None else Lease(int(token), holder)

    def renew(self, lease: Lease, ttl: float) -> bool:
        return bool(
            self._redis.call(
                *self._renew.command(
                    [self.keys.lease, self.keys.lease_token], [lease.token, lease.holder, _milliseconds(ttl)]
                )
            )
        )

    def release(self, lease: Lease) -> None:
        self._redis.call(*self._release.command([self.keys.lease, self.keys.lease_token], [lease.token]))

    def holder(self) -> str | None:
        found: bytes | None = self._redis.call("GET", self.keys.lease)
        return None if found is None else found.decode(errors="replace").partition(":")[2]

    # ----------------------------------------------------------------------------------------------------------------

    def _number(self, key: str) -> int | None:
        data: bytes | None = self._redis.call("GET", key)
        return None if data is None else _as_number(key, data)

    def _lost(self, lease: Lease) -> LeaseLost:
        return LeaseLost(f"the lease {lease.token} of {lease.holder} was lost: another trainer has taken it since")


def _as_number(what: str, data: bytes) -> int:
    """Raises: DamagedManifest, since anybody may have written the key."""
    if not data.isdigit() or len(data) > 16:
        raise DamagedManifest(f"{what} is no version: {data[:50]!r}")
    return int(data)


def _inflated(data: bytes) -> bytes:
    """Bytes that cannot be inflated are returned as they are: reading them as a manifest then fails with a reason."""
    try:
        return zlib.decompress(data)
    except zlib.error:
        return data


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _entry(entry_id: bytes, fields: Mapping[bytes, Any]) -> LogEntry:
    return LogEntry(
        time=int(entry_id.partition(b"-")[0]) / 1000,
        what=fields[b"what"].decode(),
        alias=fields[b"alias"].decode(),
        version=int(fields[b"version"]),
        reason=fields[b"reason"].decode(errors="replace"),
    )
