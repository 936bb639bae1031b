"""Lists and histories in Redis: the scorer's side of `tidemill:recs:*` and `tidemill:history:*`."""

import itertools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from consumers.records import TopicPartition
from model_store.redis_connection import RedisConnection
from service.scoring.user_history import STAMP_BYTES, STAMP_START, DamagedHistory, UserHistory, decode_history

log = logging.getLogger(__name__)

MARK_TTL_S = 3600  # of a scorer that has ended

# Replaces a history only if it is still the one that was read: a scorer that lost the user's partition without noticing
# cannot undo what its successor wrote.
_REPLACE_HISTORY = f"""
if redis.call('GETRANGE', KEYS[1], {STAMP_START}, {STAMP_START + STAMP_BYTES - 1}) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""
# Moves a writer's mark on, unless it has gone back or is gone: then it stays as it is, to be noticed.
_MOVE_MARK = """
local mark = redis.call('GET', KEYS[1])
if ARGV[1] ~= '' and (not mark or tonumber(mark) < tonumber(ARGV[1])) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""
# Replaces a list only if nobody has written a newer one meanwhile; it keeps its time to live.
_REPLACE_LIST = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1
"""


class Stored(NamedTuple):
    stamp: bytes  # empty where nothing is stored
    history: UserHistory


class Saved(NamedTuple):
    user_id: str
    expected: bytes  # the stamp of what is replaced
    stamp: bytes  # the new one
    history: UserHistory


class ListStore:
    """All methods raise StoreUnavailable when Redis does not answer, and may then be called again.

    Redis may go back in time: a failover loses what was not replicated, a restart what was not yet on disk. So each
    writer leaves a mark behind what it has written, the number of its last write; a mark that is lower than it was says
    which writes are lost, since what Redis loses is always the latest.
    """

    def __init__(
        self, redis: RedisConnection, prefix: str, *, recs_ttl_s: int, history_ttl_s: int, log_name: str = ""
    ) -> None:
        """`log_name` names the log whose offsets histories hold: see `UserHistory.log`."""
        self._redis = redis
        self._prefix = prefix
        self._recs_ttl_s, self._history_ttl_s = recs_ttl_s, history_ttl_s
        self._replace_history = redis.script(_REPLACE_HISTORY)
        self._move_mark = redis.script(_MOVE_MARK)
        self._replace_list = redis.script(_REPLACE_LIST)
        self._writer = os.urandom(4).hex()
        self._writes = itertools.count(1)
        self._log_name = log_name
        self._mark_key = f"{prefix}:scorer:{self._writer}"
        self._written = 0  # the number of the last stamp given out
        self._marked: int | None = None  # what the mark says, as far as is known; None: before the first

    def recs_key(self, user_id: str) -> str:
        return f"{self._prefix}:recs:{user_id}"

    def history_key(self, user_id: str) -> str:
        return f"{self._prefix}:history:{user_id}"

    def new_stamp(self) -> bytes:
        self._written = next(self._writes)
        return f"{self._writer}{self._written & 0xFFFFFFFF:08x}".encode()

    def histories(self, user_ids: Sequence[str]) -> dict[str, Stored]:
        """What is stored of each user; an empty history for one who is not known."""
        answers = self._redis.pipeline([("GET", self.history_key(user)) for user in user_ids])
        found = {}
        for user, raw in zip(user_ids, answers, strict=True):
            if raw is None:
                found[user] = Stored(b"", UserHistory(log=self._log_name))
                continue
            try:
                found[user] = Stored(*decode_history(raw))
                found[user].history.go_on_in(self._log_name)
            except DamagedHistory as error:
                log.error("the history of user %r cannot be read, so it begins anew: %s", user, error)
                stamp = bytes(raw[STAMP_START : STAMP_START + STAMP_BYTES])
                found[user] = Stored(stamp, UserHistory(log=self._log_name))
        return found

    def save_histories(self, saves: Sequence[Saved]) -> list[bool]:
        """Whether each was stored; False where another scorer has changed it since it was read."""
        answers = self._redis.pipeline(
            [
                self._replace_history.command(
                    [self.history_key(save.user_id)],
                    [save.expected, save.history.encode(save.stamp), self._history_ttl_s],
                )
                for save in saves
            ]
            + [self._move_mark.command([self._mark_key], [self._marked or "", self._written, MARK_TTL_S])]
        )
        *stored, moved = map(bool, answers)
        if moved:
            self._marked = self._written
        return stored

    def lost(self) -> Callable[[bytes], bool] | None:
        """None, or, once, when Redis has lost what this writer wrote last: whether a history of a stamp is lost."""
        found: bytes | None = self._redis.call("GETEX", self._mark_key, "EX", MARK_TTL_S)
        if self._marked is None or (found is not None and int(found) >= self._marked):
            return None
        self._marked = None
        if found is None:  # everything, as far as this writer can tell
            return bool
        survived, mine = int(found), self._writer.encode()
        return lambda stamp: stamp[:8] == mine and 0 < (int(stamp[8:], 16) - survived) & 0xFFFFFFFF < 1 << 31

    def write_lists(self, lists: Sequence[tuple[str, bytes]]) -> None:
        """(user_id, JSON) pairs; each replaces the user's list whole."""
        self._redis.pipeline([("SET", self.recs_key(user), raw, "EX", self._recs_ttl_s) for user, raw in lists])

    def write_default(self, raw: bytes) -> None:
        self._redis.call("SET", f"{self._prefix}:recs_default", raw)

    def read_list(self, user_id: str) -> bytes | None:
        answer: bytes | None = self._redis.call("GET", self.recs_key(user_id))
        return answer

    def lists_at_rest(self, batch: int = 500) -> Iterator[list[tuple[str, bytes]]]:
        """Every stored list, as (key, JSON), a batch at a time; one written meanwhile may or may not be among them."""
        cursor: int | bytes = 0
        while True:
            cursor, keys = self._redis.call("SCAN", cursor, "MATCH", f"{self._prefix}:recs*", "COUNT", batch)
            if keys:
                values = self._redis.pipeline([("GET", key) for key in keys])
                yield [(key.decode(), raw) for key, raw in zip(keys, values, strict=True) if raw is not None]
            if int(cursor) == 0:
                return

    def replace_lists(self, changes: Sequence[tuple[str, bytes, bytes]]) -> int:
        """(key, before, after): each only if it is still as before. How many were replaced."""
        if not changes:
            return 0
        answers = self._redis.pipeline([self._replace_list.command([key], [old, new]) for key, old, new in changes])
        return sum(map(int, answers))

    def note_active(self, where: TopicPartition, users: Sequence[tuple[str, int]]) -> None:
        """(user_id, epoch ms): who acted in a partition, so that a scorer that takes it over knows whose lists to keep
        fresh."""
        key = self._active_key(where)
        arguments: list[str | int] = []
        for user, at in users:
            arguments += [at, user]
        self._redis.pipeline([("ZADD", key, "GT", *arguments), ("EXPIRE", key, self._history_ttl_s)])

    def recently_active(self, where: TopicPartition, since_ms: int, limit: int) -> list[str]:
        """Latest first."""
        key = self._active_key(where)
        answers = self._redis.pipeline(
            [
                ("ZREMRANGEBYSCORE", key, "-inf", since_ms - 1),
                ("ZRANGE", key, "+inf", since_ms, "BYSCORE", "REV", "LIMIT", 0, limit),
            ]
        )
        return [user.decode() for user in answers[1]]

    def _active_key(self, where: TopicPartition) -> str:
        return f"{self._prefix}:active:{where.topic}:{where.partition}"
