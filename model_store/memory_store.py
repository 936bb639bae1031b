"""A model store in memory, for tests. tests/contracts/model_store/ runs the same laws on it and on Redis."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from model_store.codec import checksum
from model_store.errors import BlobMissing, LeaseLost, NoSuchVersion, ParentMissing, StillNeeded, VersionExists
from model_store.keys import Keys
from model_store.lease import Lease
from model_store.signature import Signer
from model_store.store import CHALLENGER, CHAMPION, LOG_ENTRIES, LogEntry, ModelStore
from model_store.version import BlobRef, Manifest, Summary

_Key = TypeVar("_Key")


class MemoryStore(ModelStore):
    """See ModelStore. `clock` gives epoch seconds, for leases and log entries."""

    def __init__(self, clock: Callable[[], float] = time.time, *, signer: Signer | None = None) -> None:
        self.signer = signer
        self._clock = clock
        self._keys = Keys()
        self._lock = threading.RLock()
        self._blobs: dict[str, bytes] = {}
        self._references: Counter[str] = Counter()
        self._manifests: dict[int, bytes] = {}
        self._retired: dict[int, bytes] = {}
        self._summaries: dict[int, Summary] = {}
        self._newest: int | None = None
        self._aliases: dict[str, int] = {}
        self._pinned: int | None = None
        self._pinned_at: float | None = None
        self._log: deque[LogEntry] = deque(maxlen=LOG_ENTRIES)
        self._request: str | None = None
        self._token = 0
        self._holder: str | None = None
        self._expires = 0.0

    def put_blobs(self, blobs: Mapping[str, bytes]) -> dict[str, BlobRef]:
        refs = {}
        with self._lock:
            for name, data in blobs.items():
                key = self._keys.blob(digest := checksum(data))
                self._blobs[key] = data
                refs[name] = BlobRef(key=key, bytes=len(data), checksum=digest)
        return refs

    def get_blobs(self, refs: Sequence[BlobRef]) -> list[bytes | None]:
        with self._lock:
            return [self._blobs.get(ref.key) for ref in refs]

    def publish(self, manifest: Manifest, lease: Lease) -> None:
        data = self.written(manifest)
        with self._lock:
            self._must_hold(lease)
            if manifest.version == self._newest and self._manifests.get(manifest.version) == data:
                return
            if manifest.version <= (self._newest or 0):
                raise VersionExists(f"version {manifest.version} is not above {self._newest}")
            if manifest.kind == "delta" and manifest.parent not in self._manifests:
                raise ParentMissing(f"version {manifest.version}: its parent {manifest.parent} is not in the store")
            for name, ref in manifest.blobs.items():
                if len(self._blobs.get(ref.key, b"")) != ref.bytes:
                    raise BlobMissing(f"version {manifest.version}: blob {name} is not in the store")
            summary = manifest.summary()
            self._manifests[manifest.version] = data
            self._summaries[manifest.version] = summary
            self._references.update(summary.checksums)
            self._newest = manifest.version
            self._note("publish", "", manifest.version, manifest.kind)

    def newest(self) -> int | None:
        return self._newest

    def versions(self) -> list[int]:
        with self._lock:
            return sorted(self._summaries)

    def summaries(self) -> list[Summary]:
        with self._lock:
            return [self._summaries[version] for version in sorted(self._summaries)]

    def manifest_bytes(self, versions: Sequence[int]) -> list[bytes | None]:
        with self._lock:
            return [self._manifests.get(version) for version in versions]

    def delete(self, versions: Iterable[int], *, lease: Lease | None = None) -> None:
        chosen = set(versions)
        with self._lock:
            if lease is not None:
                self._must_hold(lease)
            if needed := chosen & {self._newest, *self._aliases.values()}:
                raise StillNeeded(f"version {needed.pop()} is live, newest or under an alias")
            for version in chosen & self._summaries.keys():
                if (manifest := self._manifests.pop(version, None)) is not None:
                    self._retired[version] = manifest
                for digest in self._summaries.pop(version).checksums:
                    self._references[digest] -= 1
                    if self._references[digest] <= 0:
                        del self._references[digest]
                        self._blobs.pop(self._keys.blob(digest), None)

    def retired_manifest_bytes(self, versions: Sequence[int]) -> list[bytes | None]:
        with self._lock:
            return [self._retired.get(version) for version in versions]

    def live(self) -> int | None:
        return self._aliases.get(CHAMPION)

    def aliases(self) -> dict[str, int]:
        with self._lock:
            return dict(self._aliases)

    def pinned(self) -> int | None:
        return self._pinned

    def pinned_since(self) -> float | None:
        return self._pinned_at

    def move(self, version: int, reason: str, *, alias: str = CHAMPION, lease: Lease | None = None) -> bool:
        self._keys.alias(alias)  # raises ValueError for a name that is no alias
        with self._lock:
            if lease is not None:
                self._must_hold(lease)
                if alias == CHAMPION and self._pinned is not None:
                    return False
            self._must_be_here(version)
            if self._aliases.get(alias) != version:
                self._point(alias, version, "move", reason)
            return True

    def rollback(self, version: int, reason: str) -> None:
        with self._lock:
            self.head(version)
            self._pinned, self._pinned_at = version, self._clock()
            self._point(CHAMPION, version, "rollback", reason)

    def promote(self, version: int | None = None, reason: str = "", *, lease: Lease | None = None) -> int:
        with self._lock:
            if lease is not None:
                self._must_hold(lease)
            chosen = version if version is not None else self._newest
            if chosen is None:
                raise NoSuchVersion("no version has been published")
            self.head(chosen)
            self._pinned = self._pinned_at = None
            self._point(CHAMPION, chosen, "promote", reason)
            return chosen

    def log(self, limit: int = 100) -> list[LogEntry]:
        with self._lock:
            return list(self._log)[::-1][:limit]

    def live_at(self, time: float) -> int | None:
        with self._lock:
            for entry in reversed(self._log):
                if entry.time <= time and entry.moved_live:
                    return entry.version
        return None

    def live_since(self, time: float) -> set[int]:
        with self._lock:
            then = self.live_at(time)
            later = {entry.version for entry in self._log if entry.time > time and entry.moved_live}
            return later if then is None else later | {then}

    def request_snapshot(self, reason: str) -> None:
        with self._lock:
            self._request = self._request or reason

    def take_snapshot_request(self, lease: Lease) -> str | None:
        with self._lock:
            self._must_hold(lease)
            reason, self._request = self._request, None
            return reason

    def acquire(self, holder: str, ttl: float) -> Lease | None:
        with self._lock:
            if self.holder() is not None:
                return None
            self._token += 1
            self._holder, self._expires = holder, self._clock() + ttl
            return Lease(self._token, holder)

    def renew(self, lease: Lease, ttl: float) -> bool:
        with self._lock:
            if lease.token != self._token:
                return False
            self._holder, self._expires = lease.holder, self._clock() + ttl
            return True

    def release(self, lease: Lease) -> None:
        with self._lock:
            if lease.token == self._token:
                self._token += 1
                self._holder = None

    def holder(self) -> str | None:
        with self._lock:
            return self._holder if self._clock() < self._expires else None

    def tamper(
        self, *, manifest: tuple[int, bytes | None] | None = None, blob: tuple[str, bytes | None] | None = None
    ) -> None:
        """For tests: replaces a manifest (by version) or a blob (by key) by other bytes, or removes it (None)."""
        with self._lock:
            if manifest is not None:
                _put(self._manifests, *manifest)
            if blob is not None:
                _put(self._blobs, *blob)

    def _must_hold(self, lease: Lease) -> None:
        if lease.token != self._token:
            raise LeaseLost(f"the lease {lease.token} of {lease.holder} was lost: the token is {self._token} now")

    def _must_be_here(self, version: int) -> None:
        if version not in self._manifests:
            raise NoSuchVersion(f"version {version} is not in the store")

    def _point(self, alias: str, version: int, what: str, reason: str) -> None:
        self._aliases[alias] = version
        if alias == CHAMPION and self._aliases.get(CHALLENGER, version + 1) <= version:
            del self._aliases[CHALLENGER]
        self._note(what, alias, version, reason)

    def _note(self, what: str, alias: str, version: int, reason: str) -> None:
        self._log.append(LogEntry(self._clock(), what, alias, version, reason))


def _put(where: dict[_Key, bytes], key: _Key, data: bytes | None) -> None:
    if data is None:
        where.pop(key, None)
    else:
        where[key] = data
