"""Dead letters that their topic refuses, in Redis: under `tidemill:dead:<topic>` a stream, one letter an entry."""

from collections.abc import Sequence
from typing import Any

from consumers.letters import Refused
from consumers.shelf import SHELF_LETTERS, ShelfAway, fitting
from model_store.errors import StoreUnavailable
from model_store.redis_connection import Command, RedisConnection


class RedisShelf:
    def __init__(self, connection: RedisConnection, prefix: str, capacity: int = SHELF_LETTERS) -> None:
        self._redis, self._prefix, self._capacity = connection, prefix, capacity

    def put(self, refused: Refused) -> int:
        key = self._key(refused.letter.topic)
        _, gone = self._ask(
            ("XADD", key, "*", "letter", fitting(refused).to_json()),
            ("XTRIM", key, "MAXLEN", self._capacity),
        )
        return int(gone)

    def page(self, topic: str, n: int, after: str = "") -> Sequence[tuple[str, Refused]]:
        start = f"({after}" if after else "-"
        (entries,) = self._ask(("XRANGE", self._key(topic), start, "+", "COUNT", n))
        return [(name.decode(), Refused.from_json(fields[b"letter"])) for name, fields in entries]

    def remove(self, topic: str, names: Sequence[str]) -> None:
        if names:
            self._ask(("XDEL", self._key(topic), *names))

    def count(self, topic: str) -> int:
        (count,) = self._ask(("XLEN", self._key(topic)))
        return int(count)

    def _key(self, topic: str) -> str:
        return f"{self._prefix}:dead:{topic}"

    def _ask(self, *commands: Command) -> list[Any]:
        try:
            return self._redis.pipeline(commands)
        except StoreUnavailable as error:
            raise ShelfAway(str(error)) from error
