"""The one door to Redis. Everything that speaks to it (models, lists, histories) does so over a `RedisConnection`."""

import hashlib
from collections.abc import Sequence
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from model_store.errors import ModelStoreError, StoreUnavailable
from model_store.redis_url import check_redis_url

Command = Sequence[str | bytes | int | float]
"""A command and its arguments, as one would type them."""


def connect(url: str, *, timeout: float = 10.0, retries: int = 2) -> "RedisConnection":
    """A pool of connections to `redis://`, `rediss://` or `unix://`; nothing is opened before the first command.

    timeout: seconds for connecting, and for sending or receiving one command (256 MB take about two over 1 Gbit/s).
    retries: how often a command is sent again after a broken connection. It may then have been carried out twice: send
    only what may be repeated.

    Raises: ModelStoreError where the URL is none.
    """
    # typed Any: the library's own types and the stubs that some environments hold disagree about it
    library: Any = redis.Redis
    try:
        check_redis_url(url)
        over_tcp = {} if url.startswith("unix:") else {"socket_keepalive": True}
        client = library.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=min(timeout, 3.0),
            **over_tcp,
            # a connection that lay idle is asked before it is used: what a restart or a firewall cut is opened anew
            health_check_interval=15,
            # not a timeout: whoever is silent once would be waited for as often again before anybody hears of it
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries, (redis.exceptions.ConnectionError,)),
            decode_responses=False,
            command_packer=_Packer(),
            protocol=2,  # one shape of answers with every server from 6.2 on
        )
        client.connection_pool.make_connection()  # which is not opened: some options are looked at only here
    except (ValueError, TypeError, redis.exceptions.RedisError) as error:
        raise ModelStoreError(f"the address of Redis: {error}") from error
    return RedisConnection(client)


class RedisConnection:
    """Commands in, answers out, as redis-py gives them (bytes, numbers, lists, dicts, None). Safe between threads.

    Whatever goes wrong on the way or at the other end (down, loading, full, read-only, no answer) is StoreUnavailable,
    so that callers need to know neither redis-py nor its errors.
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
            # a server that restarted or failed over has forgotten the scripts; the rest may be repeated by contract
            self._send([("SCRIPT", "LOAD", script.source) for script in self._scripts])
            answers = self._send(commands)
        for answer in answers:
            if isinstance(answer, redis.exceptions.ReadOnlyError):
                # the primary has become a replica: look its name up anew, the next connection may lead to the new one
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


# of a cluster's answers the library keeps but the slot and the address
_FIRST_WORDS: dict[type[Exception], str] = {redis.exceptions.MovedError: "MOVED", redis.exceptions.AskError: "ASK"}


def _told(error: Exception) -> str:
    """What the server or the library says, on one line."""
    first = _FIRST_WORDS.get(type(error))
    if first is None:
        return str(error)
    return f"{first} {error}: this is one node of a Redis Cluster, and the key lies on another"


class _Packer:
    """Commands as bytes to send. A large value is sent from where it lies: copied beside its command, as the library
    does, 256 MB would keep every other thread waiting for half a second."""

    LARGE = 1 << 16

    def pack(self, *args: str | bytes | int | float) -> list[bytes]:
        values = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
        values[:1] = values[0].split()  # the library itself names commands of two words
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
    """A Lua script: one atomic step. `command` is what to send; the connection loads the source where it is unknown."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Command:
        return ("EVALSHA", self._sha, len(keys), *keys, *arguments)
