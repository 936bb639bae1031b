"""The only module that uses redis-py: models, lists and histories are read and written over a `RedisConnection`."""

import hashlib
from collections.abc import Sequence
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from model_store.errors import ModelStoreError, StoreUnavailable
from model_store.redis_url import check_redis_url

Command = Sequence[str | bytes | int | float]
"""The name of a command and its arguments."""


def connect(url: str, *, timeout: float = 10.0, retries: int = 2) -> "RedisConnection":
    """A pool of connections to `redis://`, `rediss://` or `unix://`; nothing is opened before the first command.

    timeout: seconds for connecting (at most 3), and for sending or receiving one command (256 MB take about two over
    1 Gbit/s). retries: how often a command is sent again after a broken connection. It may then be carried out twice:
    send only commands that may be repeated.

    Raises: ModelStoreError if it is not the URL of a Redis.
    """
    # Any, because the library's types and the stubs that some environments have disagree
    library: Any = redis.Redis
    try:
        check_redis_url(url)
        over_tcp = {} if url.startswith("unix:") else {"socket_keepalive": True}
        client = library.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=min(timeout, 3.0),
            **over_tcp,
            # a connection that was idle this long is pinged before it is used, and opened anew if it was cut
            health_check_interval=15,
            # timeouts are not retried: each would be waited out once more before the caller gets an error
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries, (redis.exceptions.ConnectionError,)),
            decode_responses=False,
            command_packer=_Packer(),
            protocol=2,  # one shape of answers with every server from 6.2 on
        )
        client.connection_pool.make_connection()  # opens nothing, but checks the options
    except (ValueError, TypeError, redis.exceptions.RedisError) as error:
        raise ModelStoreError(f"the address of Redis: {error}") from error
    return RedisConnection(client)


class RedisConnection:
    """Sends commands and returns their answers, as redis-py gives them (bytes, numbers, lists, dicts, None).

    Safe to use from several threads. Every failure (down, loading, full, read-only, no answer) is StoreUnavailable, so
    that callers need not know redis-py's errors.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self._scripts: list[Script] = []

    def call(self, *command: str | bytes | int | float) -> Any:
        """One command. Raises: StoreUnavailable."""
        return self.pipeline([command])[0]

    def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """Several commands in one round trip, in order, not atomic. Raises: StoreUnavailable if any of them failed."""
        answers = self._send(commands)
        if any(isinstance(answer, redis.exceptions.NoScriptError) for answer in answers):
            # a server that restarted or failed over has no scripts; the other commands may be repeated, by contract
            self._send([("SCRIPT", "LOAD", script.source) for script in self._scripts])
            answers = self._send(commands)
        for answer in answers:
            if isinstance(answer, redis.exceptions.ReadOnlyError):
                # the primary has become a replica: a new connection looks the name up anew, and may reach the new one
                self.client.connection_pool.disconnect(inuse_connections=False)
            if isinstance(answer, redis.exceptions.RedisError):
                raise StoreUnavailable(f"Redis: {_told(answer)}") from answer
        return answers

    def script(self, source: str) -> "Script":
        """A Lua script that can then be called by its hash."""
        script = Script(source)
        self._scripts.append(script)
        return script

    def close(self) -> None:
        """Closes the connections; a later command opens new ones."""
        self.client.close()

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        if not commands:
            return []
        try:
            with self.client.pipeline(transaction=False) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                return list(pipe.execute(raise_on_error=False))
        except redis.exceptions.RedisError as error:
            raise StoreUnavailable(f"Redis: {_told(error)}") from error


# the library drops the first word of these answers
_FIRST_WORDS: dict[type[Exception], str] = {redis.exceptions.MovedError: "MOVED", redis.exceptions.AskError: "ASK"}


def _told(error: Exception) -> str:
    """What the server or the library says, on one line."""
    first = _FIRST_WORDS.get(type(error))
    if first is None:
        return str(error)
    return f"{first} {error}: this is one node of a Redis Cluster, and the key lies on another"


class _Packer:
    """Encodes commands. A large value is not copied: the library's packer joins it with its command, and 256 MB would
    block every other thread for half a second."""

    LARGE = 1 << 16  # bytes

    def pack(self, *args: str | bytes | int | float) -> list[bytes]:
        values = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
        values[:1] = values[0].split()  # the library sends some commands of two words as one
        output, small = list[bytes](), [b"*%d" % len(values)]
        for value in values:
            small.append(b"$%d" % len(value))
            if len(value) > self.LARGE:
                output += [b"\r\n".join([*small, b""]), value]
                small = [b""]
            else:
                small.append(value)
        return [*output, b"\r\n".join([*small, b""])]


class Script:
    """A Lua script: one atomic step. `command` calls it; the connection loads the source if the server lacks it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Command:
        return ("EVALSHA", self._sha, len(keys), *keys, *arguments)
