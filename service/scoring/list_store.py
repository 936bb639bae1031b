"""Lists and histories in Redis: the scorer's side of `tidemill:recs:*` and `tidemill:history:*`.

Every command touches one key, so that they may lie on several servers.
"""

import itertools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from consumers.records import TopicPartition
from model_store.redis_connection import Command, RedisConnection
from service.scoring.list_index import entry_of
from service.scoring.recommendations import entry_start
from service.scoring.user_history import STAMP_BYTES, STAMP_START, DamagedHistory, UserHistory, decode_history

log = logging.getLogger(__name__)

MARK_TTL_S = 3600  # a mark stays so long after its scorer has ended
TAKE_OUT_AT_ONCE = 200  # lists; Redis is busy with them for 1.5 ms, for which its other clients wait
DROP_AT_ONCE = 500  # entries of the index in one step

# Replaces a history only if it is still the one that was read: a scorer that lost the user's partition without noticing
# cannot undo what its successor wrote.
_REPLACE_HISTORY = f"""
if redis.call('GETRANGE', KEYS[1], {STAMP_START}, {STAMP_START + STAMP_BYTES - 1}) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""
# Moves a writer's mark on. A mark that has gone back, or is gone, stays as it is, so that `lost` notices it.
_MOVE_MARK = """
local mark = redis.call('GET', KEYS[1])
if ARGV[1] ~= '' and (not mark or tonumber(mark) < tonumber(ARGV[1])) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""
# Blanks out entries of a list, each given by how it begins (`recommendations.entry_start`), with the comma that parts
# it from its neighbour. JSON takes blanks anywhere, so what stays need not be moved: of lists of 2,600 bytes Redis does
# 150,000 a second so, and 60,000 where each is put together anew. The time to live stays too.
_TAKE_OUT = """
local taken = 0
for _, entry in ipairs(ARGV) do
  local list = redis.call('GET', KEYS[1])
  if not list or string.sub(list, -2) ~= ']}' then return taken end
  local from = string.find(list, entry, 1, true)
  if from then
    local to = string.find(list, '{"item_id":', from + 1, true)
    if to then
      to = to - 1
    else
      to = #list - 2
      local before = from - 1
      while string.byte(list, before) == 32 do before = before - 1 end
      if string.byte(list, before) == 44 then from = before end
    end
    redis.call('SETRANGE', KEYS[1], from - 1, string.rep(' ', to - from + 1))
    taken = taken + 1
  end
end
return taken
"""
# Drops fields of a hash that are still as they were read.
_DROP = """
for n = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[n]) == ARGV[n + 1] then redis.call('HDEL', KEYS[1], ARGV[n]) end
end
return 1
"""


RELATED = TopicPartition("", 0)
"""In place of the partition of a user's events: the lists of what goes with an item, which belong to none."""

# Takes a lease or renews it: one holder at a time.
_HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""


class Stored(NamedTuple):
    stamp: bytes  # empty where nothing is stored
    history: UserHistory


class Saved(NamedTuple):
    user_id: str
    expected: bytes  # the stamp of the stored history that is replaced
    stamp: bytes  # the new stamp
    history: UserHistory


class UserList(NamedTuple):
    user_id: str  # or an item's id, where `partitions` is RELATED
    items: list[str]
    raw: bytes  # the JSON of the contract, of these items
    partitions: list[TopicPartition]  # those of the user's events: the scorers that read them sweep the list


class ListStore:
    """All methods raise StoreUnavailable when Redis does not answer, and may then be called again.

    Redis may go back in time: a failover loses what was not replicated, a restart what was not yet on disk. So after
    its writes each writer stores a mark, the number of its last write. Redis always loses the latest writes, so a mark
    that has gone back shows which writes are lost.
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
        self._hold = redis.script(_HOLD)
        self._take_out, self._drop = redis.script(_TAKE_OUT), redis.script(_DROP)
        self._writer = os.urandom(4).hex()
        self._writes = itertools.count(1)
        self._log_name = log_name
        self._mark_key = f"{prefix}:scorer:{self._writer}"
        self._written = 0  # the number of the last stamp given out
        self._marked: int | None = None  # the mark as stored last; None: before the first, and after a loss

    def recs_key(self, user_id: str) -> str:
        return f"{self._prefix}:recs:{user_id}"

    def related_key(self, item_id: str) -> str:
        return f"{self._prefix}:related:{item_id}"

    def _key_of(self, where: TopicPartition, name: str) -> str:
        """The key of a list that is swept with `where`: a user's, or an item's."""
        return self.related_key(name) if where == RELATED else self.recs_key(name)

    def hold_related(self, ttl_s: float) -> bool:
        """Takes the lease on related lists, or renews it; False while another writer holds it."""
        key = f"{self._prefix}:related_writer"
        [held] = self._redis.pipeline([self._hold.command([key], [self._writer, int(1000 * ttl_s)])])
        return bool(held)

    def history_key(self, user_id: str) -> str:
        return f"{self._prefix}:history:{user_id}"

    def new_stamp(self) -> bytes:
        """A stamp that no other write has: the writer, and the number of the write."""
        self._written = next(self._writes)
        return f"{self._writer}{self._written & 0xFFFFFFFF:08x}".encode()

    def histories(self, user_ids: Sequence[str]) -> dict[str, Stored]:
        """The stored history of each user; an empty one where none is stored, or what is stored is damaged."""
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
        """Stores histories. Returns for each whether it was stored; False where another scorer has changed it since."""
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
        """Whether Redis has lost writes of this writer: None where it has not, and after the loss was returned once.

        Else a function that says of a stamp whether the history with it is lost.
        """
        found: bytes | None = self._redis.call("GETEX", self._mark_key, "EX", MARK_TTL_S)
        if self._marked is None or (found is not None and int(found) >= self._marked):
            return None
        self._marked = None
        if found is None:  # everything, as far as this writer can tell
            return bool
        survived, mine = int(found), self._writer.encode()
        return lambda stamp: stamp[:8] == mine and 0 < (int(stamp[8:], 16) - survived) & 0xFFFFFFFF < 1 << 31

    def write_lists(self, lists: Sequence[UserList]) -> None:
        """Replaces each user's list whole, after its entry in the index. A scorer that dies in between leaves an entry
        that does not fit the list; the user acted lately, so the next scorer writes the list anew."""
        expires_s = int(time.time()) + self._recs_ttl_s
        entries: dict[TopicPartition, list[str | bytes]] = {}
        for each in lists:
            for where in each.partitions:
                entries.setdefault(where, []).extend((each.user_id, entry_of(each.items, expires_s)))
        commands: list[Command] = []
        for where, pairs in entries.items():
            key = self._index_key(where)
            commands += [("HSET", key, *pairs), ("EXPIRE", key, self._recs_ttl_s)]
        commands += [
            ("SET", self._key_of(each.partitions[0], each.user_id), each.raw, "EX", self._recs_ttl_s) for each in lists
        ]
        self._redis.pipeline(commands)

    def read_list(self, user_id: str) -> bytes | None:
        answer: bytes | None = self._redis.call("GET", self.recs_key(user_id))
        return answer

    def write_default(self, raw: bytes) -> None:
        self._redis.call("SET", self._default_key, raw)

    def read_default(self) -> bytes | None:
        answer: bytes | None = self._redis.call("GET", self._default_key)
        return answer

    def index(self, where: TopicPartition) -> Iterator[tuple[list[str], list[bytes]]]:
        """The users of a partition who have a list, and the entries of their lists (`list_index`), about a thousand at
        a time. Of a list that is written meanwhile: the entry before, the new one, or none."""
        cursor: int | bytes = 0
        while True:
            cursor, found = self._redis.call("HSCAN", self._index_key(where), cursor, "COUNT", 1000)
            yield [user.decode(errors="replace") for user in found], list(found.values())
            if int(cursor) == 0:
                return

    def drop_entries(self, where: TopicPartition, entries: Sequence[tuple[str, bytes]]) -> None:
        """Drops (user, entry) from the index, where the entry is still the same."""
        fields: list[str | bytes] = [part for entry in entries for part in entry]
        starts = range(0, len(fields), 2 * DROP_AT_ONCE)
        self._redis.pipeline(
            [self._drop.command([self._index_key(where)], fields[n : n + 2 * DROP_AT_ONCE]) for n in starts]
        )

    def take_out(self, where: TopicPartition, items: Sequence[tuple[str, Iterable[str]]]) -> int:
        """Takes items out of the lists swept with `where`: (user, items). Returns how many lists have changed."""
        keyed = [(self._key_of(where, user), of_user) for user, of_user in items]
        parts = [keyed[n : n + TAKE_OUT_AT_ONCE] for n in range(0, len(keyed), TAKE_OUT_AT_ONCE)]
        with ThreadPoolExecutor(2) as pool:  # one prepares commands while Redis carries out the other's
            return sum(pool.map(self._taken_out, parts))

    def take_out_of_default(self, items: Iterable[str]) -> int:
        return self._taken_out([(self._default_key, items)])

    def _taken_out(self, items: Sequence[tuple[str, Iterable[str]]]) -> int:
        answers = self._redis.pipeline(
            [self._take_out.command([key], list(map(entry_start, of_list))) for key, of_list in items]
        )
        return sum(taken > 0 for taken in answers)

    def note_active(self, where: TopicPartition, users: Sequence[tuple[str, int]], since_ms: int) -> None:
        """Notes who acted in a partition: (user_id, epoch ms). A scorer that takes the partition over then knows whose
        lists to keep fresh. Drops those who have not acted since `since_ms`."""
        key = self._active_key(where)
        arguments: list[str | int] = []
        for user, at in users:
            arguments += [at, user]
        self._redis.pipeline(
            [
                ("ZADD", key, "GT", *arguments),
                ("ZREMRANGEBYSCORE", key, "-inf", f"({since_ms}"),
                ("EXPIRE", key, self._history_ttl_s),
            ]
        )

    def recently_active(self, where: TopicPartition, since_ms: int, limit: int) -> list[str]:
        """Users who acted in a partition since `since_ms` (epoch milliseconds), latest first."""
        key = self._active_key(where)
        answers = self._redis.pipeline(
            [
                ("ZREMRANGEBYSCORE", key, "-inf", f"({since_ms}"),
                ("ZRANGE", key, "+inf", since_ms, "BYSCORE", "REV", "LIMIT", 0, limit),
            ]
        )
        return [user.decode() for user in answers[1]]

    @property
    def _default_key(self) -> str:
        return f"{self._prefix}:recs_default"

    def _index_key(self, where: TopicPartition) -> str:
        return f"{self._prefix}:listed:{where.topic}:{where.partition}"

    def _active_key(self, where: TopicPartition) -> str:
        return f"{self._prefix}:active:{where.topic}:{where.partition}"
