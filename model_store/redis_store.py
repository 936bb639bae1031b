"""A model store in Redis. keys.py says what lies where; every step that must be atomic is one Lua script.

Blobs that only trainers read may lie in a folder instead. A file there is noted as dropped before it is written, and
the note goes when a version names it: so whatever dies in between, nothing is left over for good.
"""

import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from model_store.blob_folder import BlobFolder
from model_store.codec import checksum
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
from model_store.redis_connection import Command, RedisConnection
from model_store.signature import Signer
from model_store.store import CHALLENGER, CHAMPION, LogEntry, ModelStore
from model_store.version import BlobRef, Manifest, Summary
from model_store.weights import TRAINER

LOG_ENTRIES = 100_000
UNPUBLISHED_SECONDS = 3600  # a trainer that dies between blobs and manifest leaves nothing behind for longer
LINGER_SECONDS = 60  # a retired blob outlives its version so long, for readers that were just told of it
RETIRED_MANIFESTS = 50_000  # about two hours of them, and 25 MB
_REASON = 1000  # letters of a reason that the log keeps
_PAGE = 1000  # log entries read at once
_BYTES_AT_ONCE = 64 << 20  # of blobs in one round trip; neither side should buffer gigabytes

# A token that is lower, or not there, means a Redis that went back in time (a failover) or lost everything: whoever
# held the lease before may restore it, and the first one to write shuts out any other.
_HELD = """
local function held(key, token)
  local now = redis.call('GET', key)
  if now and tonumber(now) > tonumber(token) then return false end
  if now ~= token then redis.call('SET', key, token) end
  return true
end
"""

_PUBLISH = (
    _HELD
    + """
local token, newest, versions, summaries, references, dropped, log, manifest, parent = unpack(KEYS)
if not held(token, ARGV[1]) then return 'lease' end
local version, last = ARGV[2], redis.call('GET', newest)
if last == version and redis.call('GET', manifest) == ARGV[4] then return 'ok' end
if last and tonumber(version) <= tonumber(last) then return 'exists' end
if ARGV[3] == 'delta' and redis.call('EXISTS', parent) == 0 then return 'parent' end
redis.call('SET', manifest, ARGV[4])
redis.call('SET', newest, version)
redis.call('ZADD', versions, version, version)
redis.call('HSET', summaries, version, ARGV[5])
for i = 7, #ARGV do
  redis.call('HINCRBY', references, ARGV[i], 1)
  redis.call('SREM', dropped, ARGV[i])
end
redis.call('XADD', log, 'MAXLEN', '~', ARGV[6], '*',
  'what', 'publish', 'alias', '', 'version', version, 'reason', ARGV[3])
return 'ok'
"""
)

_MOVE = (
    _HELD
    + """
local token, pinned, pinned_at, pointer, challenger, aliases, log, manifest = unpack(KEYS)
local lease, what, alias, version, reason, length = unpack(ARGV)
if lease ~= '' then
  if not held(token, lease) then return 'lease' end
  if what == 'move' and alias == 'champion' and redis.call('EXISTS', pinned) == 1 then return 'pinned' end
end
if redis.call('EXISTS', manifest) == 0 then return 'missing' end
if what == 'rollback' then
  local now = redis.call('TIME')
  redis.call('SET', pinned, version)
  redis.call('SET', pinned_at, now[1] .. string.format('%03d', math.floor(now[2] / 1000)))
end
if what == 'promote' then redis.call('DEL', pinned, pinned_at) end
if what == 'move' and redis.call('GET', pointer) == version then return 'ok' end
redis.call('SET', pointer, version)
if alias ~= 'champion' then
  redis.call('SADD', aliases, alias)
elseif tonumber(redis.call('GET', challenger) or version + 1) <= tonumber(version) then
  redis.call('DEL', challenger)
  redis.call('SREM', aliases, 'challenger')
end
redis.call('XADD', log, 'MAXLEN', '~', length, '*',
  'what', what, 'alias', alias, 'version', version, 'reason', reason)
return 'ok'
"""
)

# The keys of manifests and aliases are made here: which ones there are is only known inside the step. They are in the
# same slot as the others.
_DELETE = (
    _HELD
    + """
local token, newest, live, aliases, versions, summaries, references, dropped = unpack(KEYS)
if ARGV[1] ~= '' and not held(token, ARGV[1]) then return {'lease'} end
local needed = {}
needed[redis.call('GET', newest) or ''] = true
needed[redis.call('GET', live) or ''] = true
for _, alias in ipairs(redis.call('SMEMBERS', aliases)) do needed[redis.call('GET', ARGV[2] .. alias) or ''] = true end
for i = 4, #ARGV do if needed[ARGV[i]] then return {'needed', ARGV[i]} end end
for i = 4, #ARGV do
  local version = ARGV[i]
  local summary = redis.call('HGET', summaries, version)
  redis.call('DEL', ARGV[3] .. version)
  redis.call('ZREM', versions, version)
  redis.call('HDEL', summaries, version)
  for digest in string.gmatch(summary or '', '%x+') do
    if #digest == 64 and redis.call('HINCRBY', references, digest, -1) <= 0 then
      redis.call('HDEL', references, digest)
      redis.call('SADD', dropped, digest)
    end
  end
end
return {'ok'}
"""
)

# A token is at least the time in milliseconds, so that one given out before Redis lost it is never given out again.
_ACQUIRE = """
local lease, token = unpack(KEYS)
if redis.call('EXISTS', lease) == 1 then return false end
local now = redis.call('TIME')
local time = now[1] * 1000 + math.floor(now[2] / 1000)
local mine = string.format('%.0f', math.max(time, (redis.call('GET', token) or 0) + 1))
redis.call('SET', token, mine)
redis.call('SET', lease, mine .. ':' .. ARGV[1], 'PX', ARGV[2])
return mine
"""

_RENEW = (
    _HELD
    + """
local lease, token = unpack(KEYS)
if not held(token, ARGV[1]) then return 0 end
redis.call('SET', lease, ARGV[1] .. ':' .. ARGV[2], 'PX', ARGV[3])
return 1
"""
)

_RELEASE = """
local lease, token = unpack(KEYS)
if redis.call('GET', token) ~= ARGV[1] then return 0 end
redis.call('INCR', token)
redis.call('DEL', lease)
return 1
"""

_TAKE = """
local reason = redis.call('GET', KEYS[1])
redis.call('DEL', KEYS[1])
return reason
"""


class RedisStore(ModelStore):
    """See ModelStore. Times are those of the Redis server.

    folder: where blobs under `trainer/` are put, and looked for; without one they are in Redis like all others.
    linger: seconds that a retired blob stays readable; 0 removes it at once. Files are always removed at once.
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
        self._redis, self._folder = connection, folder
        self._linger = linger
        self._log_entries = log_entries
        self._retired_manifests = retired_manifests
        self._publish = connection.script(_PUBLISH)
        self._move = connection.script(_MOVE)
        self._delete = connection.script(_DELETE)
        self._acquire = connection.script(_ACQUIRE)
        self._renew = connection.script(_RENEW)
        self._release = connection.script(_RELEASE)
        self._take = connection.script(_TAKE)
        # publishing a blob and dropping it must not cross; other processes are kept out by the lease
        self._writing = threading.Lock()

    # -- blobs -------------------------------------------------------------------------------------------------------

    def put_blobs(self, blobs: Mapping[str, bytes]) -> dict[str, BlobRef]:
        refs = {}
        for name, data in blobs.items():
            digest = checksum(data)
            into = self._folder.key if self._folder is not None and name.startswith(TRAINER) else self.keys.blob
            refs[name] = BlobRef(key=into(digest), bytes=len(data), checksum=digest)
        self._put_files({ref.checksum: blobs[name] for name, ref in refs.items() if self._is_file(ref)})
        self._put_values({ref.key: blobs[name] for name, ref in refs.items() if not self._is_file(ref)})
        return refs

    def _put_files(self, files: Mapping[str, bytes]) -> None:
        if self._folder is not None and files:
            self._redis.call("SADD", self.keys.dropped, *files)
            for digest, data in files.items():
                self._folder.put(digest, data)

    def _put_values(self, values: Mapping[str, bytes]) -> None:
        left = self._redis.pipeline([("TTL", key) for key in values])
        commands: list[Command] = []
        waiting = 0
        for (key, data), ttl in zip(values.items(), left, strict=True):
            # written even where it is: what lies there may be damaged. A blob that a version names has no time to
            # live (-1) and must not be given one
            commands.append(("SET", key, data) + (() if ttl == -1 else ("EX", UNPUBLISHED_SECONDS)))
            waiting += len(data)
            if waiting > _BYTES_AT_ONCE:
                self._redis.pipeline(commands)
                commands, waiting = [], 0
        self._redis.pipeline(commands)

    def get_blobs(self, refs: Sequence[BlobRef]) -> list[bytes | None]:
        files = [ref.checksum for ref in refs if self._is_file(ref)]
        from_folder = iter(self._folder.get(files) if self._folder is not None else ())
        from_redis = iter(self._get_values([ref for ref in refs if not self._is_file(ref)]))
        return [next(from_folder if self._is_file(ref) else from_redis) for ref in refs]

    def _get_values(self, refs: Sequence[BlobRef]) -> list[bytes | None]:
        found: list[bytes | None] = []
        keys: list[str] = []
        waiting = 0
        for ref in refs:
            keys.append(ref.key)
            waiting += ref.bytes
            if waiting > _BYTES_AT_ONCE:
                found += self._redis.pipeline([("GET", key) for key in keys])
                keys, waiting = [], 0
        return found + self._redis.pipeline([("GET", key) for key in keys])

    def why_missing(self, ref: BlobRef) -> str:
        if "://" not in ref.key:
            return ""
        if self._folder is None:
            return ": it lies in a folder, and TIDEMILL_CHECKPOINT_URL is not set"
        return "" if self._is_file(ref) else f": TIDEMILL_CHECKPOINT_URL is {self._folder.url}, and no other is read"

    def _is_file(self, ref: BlobRef) -> bool:
        # the whole key is compared: nobody who writes a manifest can have another path opened
        return self._folder is not None and ref.key == self._folder.key(ref.checksum)

    # -- versions ----------------------------------------------------------------------------------------------------

    def publish(self, manifest: Manifest, lease: Lease) -> None:
        keys, version, data = self.keys, manifest.version, self.written(manifest)
        summary = manifest.summary()
        # only blobs that this store keeps; others may come to lie elsewhere
        blobs = {name: ref for name, ref in manifest.blobs.items() if ref.key == keys.blob(ref.checksum)}
        with self._writing:
            for name, ref in manifest.blobs.items():
                if self._folder is not None and self._is_file(ref) and self._folder.size(ref.checksum) != ref.bytes:
                    raise BlobMissing(f"version {version}: blob {name} is not in {self._folder.url}")
            answers = self._redis.pipeline(
                [
                    *(("PERSIST", ref.key) for ref in blobs.values()),
                    *(("STRLEN", ref.key) for ref in blobs.values()),
                    ("SADD", keys.models, keys.model),
                ]
            )
            persisted = [ref for ref, done in zip(blobs.values(), answers, strict=False) if done]
            for (name, ref), length in zip(blobs.items(), answers[len(blobs) :], strict=False):
                if length != ref.bytes:
                    self._expire(persisted)
                    raise BlobMissing(f"version {version}: blob {name} is not in the store")
            answer = self._redis.call(
                *self._publish.command(
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
                        data,
                        summary.to_text(),
                        self._log_entries,
                        *summary.checksums,
                    ],
                )
            )
            if answer != b"ok":
                self._expire(persisted)
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
            self._drop_blobs()

    def retired_manifest_bytes(self, versions: Sequence[int]) -> list[bytes | None]:
        if not versions:
            return []
        found: list[bytes | None] = self._redis.call("HMGET", self.keys.retired, *versions)
        return [None if data is None else _inflated(data) for data in found]

    def _remember(self, versions: Sequence[int]) -> None:
        """Keeps the manifests of versions that are about to be deleted, and forgets the oldest of those kept."""
        found = zip(versions, self.manifest_bytes(versions), strict=True)
        kept = [word for version, data in found if data is not None for word in (version, zlib.compress(data))]
        if not kept:
            return
        _, held = self._redis.pipeline([("HSET", self.keys.retired, *kept), ("HLEN", self.keys.retired)])
        if held > self._retired_manifests:
            oldest = sorted(int(version) for version in self._redis.call("HKEYS", self.keys.retired))
            self._redis.call("HDEL", self.keys.retired, *oldest[: held - self._retired_manifests])

    def _drop_blobs(self) -> None:
        """Removes the blobs that versions have let go of. Those left over from a crash amid it come along, and files
        that were put and never published."""
        dropped = sorted(self._redis.call("SMEMBERS", self.keys.dropped))
        if not dropped:
            return
        # this model among them: a file that was put again, for a version that never came, may be named by another
        models = {self.keys.model, *(name.decode() for name in self._redis.call("SMEMBERS", self.keys.models))}
        counts = self._redis.pipeline(
            [("HMGET", Keys(model=name, prefix=self.keys.prefix).references, *dropped) for name in sorted(models)]
        )
        named = {digest for each in counts for digest, count in zip(dropped, each, strict=True) if count is not None}
        gone = [digest.decode() for digest in dropped if digest not in named]
        self._redis.pipeline([("EXPIRE", self.keys.blob(digest), self._linger) for digest in gone])  # 0: at once
        if self._folder is not None:
            self._folder.delete(gone)
        self._redis.call("SREM", self.keys.dropped, *dropped)

    def _expire(self, refs: Sequence[BlobRef]) -> None:
        self._redis.pipeline([("EXPIRE", ref.key, UNPUBLISHED_SECONDS) for ref in refs])

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
        self.manifest(version)
        self._point("rollback", version, reason)

    def promote(self, version: int | None = None, reason: str = "", *, lease: Lease | None = None) -> int:
        # a version published between the two steps is taken live by the trainer itself, now that nothing is pinned
        chosen = version if version is not None else self.newest()
        if chosen is None:
            raise NoSuchVersion("no version has been published")
        self.manifest(chosen)
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

    def take_snapshot_request(self) -> str | None:
        found: bytes | None = self._redis.call(*self._take.command([self.keys.snapshot_requested], []))
        return None if found is None else found.decode(errors="replace")

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
    """People can write into Redis too. Raises: DamagedManifest."""
    if not data.isdigit() or len(data) > 16:
        raise DamagedManifest(f"{what} is no version: {data[:50]!r}")
    return int(data)


def _inflated(data: bytes) -> bytes:
    """What cannot be inflated is given as it is: reading it as a manifest then says what is wrong."""
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
