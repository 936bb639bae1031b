"""The bounded pipe from the feeder process to its parent: columns as bytes, nothing pickled.

A message begins with one byte for its kind. A status or a refused letter is then a JSON object, and a batch is
(little-endian):

    u32 n events · u32 bytes of the JSON part · u32 bytes of the users · u32 bytes of the items
    user i32[n] · item i32[n] · type i16[n] · ts i64[n] · value f64[n] · event_key i64[n] · kafka_ts i64[n]
    the JSON part · users · items

users and items are each: u32 how many · u32 lengths in characters · the strings joined, UTF-8. The JSON part holds the
other fields of a MicroBatch. Both ends are of one release, so the format has no version.
"""

import contextlib
import os
import queue
import socket
import struct
import threading
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from consumers.letters import Refused
from consumers.micro_batch import ItemChange, MicroBatch
from consumers.records import OffsetRange, TopicPartition, offsets_in, offsets_out

_BATCH, _STATUS, _REFUSED = b"B", b"S", b"R"
_HEADER = struct.Struct("<4I")
_COLUMNS = (
    ("user", "<i4"),
    ("item", "<i4"),
    ("type", "<i2"),
    ("ts", "<i8"),
    ("value", "<f8"),
    ("event_key", "<i8"),
    ("kafka_ts", "<i8"),
)


class FeederDied(Exception):  # a state of the world, named for what happened
    """The feeder's end of the pipe is closed, and everything it sent was received."""


class ParentDied(Exception):
    """The parent's end of the pipe is closed."""


@dataclass(frozen=True, slots=True)
class FeederStatus:
    """The feeder's state, its heartbeat: sent at least once a second while the pipe has room."""

    healthy: bool
    message: str = ""
    items_read: bool = False  # whether every record that was in `items` at the start has been sent
    end_offsets: dict[TopicPartition, int] = field(default_factory=dict)  # the partitions' ends as last heard


Received = MicroBatch | FeederStatus | Refused
"""A message. A refused letter comes before the batch that covers its record's offset."""


class PipeSender:
    """The feeder's end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, message: Received) -> None:
        """Send a message; blocks while the pipe and the receiver's queue are full. Raises ParentDied."""
        try:
            self._connection.send_bytes(encode(message))
        except OSError as error:
            raise ParentDied("the pipe is closed") from error


class PipeReceiver:
    """The parent's end: a thread moves messages into a queue of `capacity`, and stops reading while it is full.

    So at most `capacity` + 1 messages are held here, and about 200 KB in the kernel.
    """

    def __init__(self, connection: Connection, capacity: int = 8) -> None:
        self._connection = connection
        self._queue: queue.Queue[Received | None] = queue.Queue(capacity)  # None: the end
        self._dead = False
        self._closed = False
        self._thread = threading.Thread(target=self._fill, name="pipe-receiver", daemon=True)
        self._thread.start()

    def receive(self, timeout_s: float) -> Received | None:
        """The next message, or None if none comes within `timeout_s` seconds. Raises FeederDied after the last."""
        if not self._dead:
            try:
                message = self._queue.get(timeout=timeout_s) if timeout_s > 0 else self._queue.get_nowait()
            except queue.Empty:
                return None
            if message is not None:
                return message
            self._dead = True
        raise FeederDied("the feeder has closed the pipe")

    def close(self) -> None:
        """Close the parent's end and drop what was not received. May be called twice, but not during `receive`."""
        if self._closed:
            return
        self._closed = self._dead = True
        # The shutdown wakes the thread's read; after a mere close it would wait on a descriptor that may be reused.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as pipe:
            pipe.shutdown(socket.SHUT_RDWR)
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._queue.get_nowait()
            self._thread.join(0.01)
        self._connection.close()

    def _fill(self) -> None:
        try:
            while not self._closed:
                self._queue.put(decode_message(self._connection.recv_bytes()))
        except (EOFError, OSError):
            pass
        self._queue.put(None)


def encode(message: Received) -> bytes:
    """The bytes of one message."""
    if isinstance(message, FeederStatus):
        fields = {
            "healthy": message.healthy,
            "message": message.message,
            "items_read": message.items_read,
            "end_offsets": offsets_out(message.end_offsets),
        }
        return _STATUS + orjson.dumps(fields)
    if isinstance(message, Refused):
        return _REFUSED + message.to_json()
    rest = {
        "catalogue": [[c.item_id, c.deleted, c.available, c.title, c.category] for c in message.catalogue],
        "ranges": [tuple(r) for r in message.ranges],
        "records": message.records,
        "rejected": message.rejected,
        "ahead": message.ahead,
        "misrouted": message.misrouted,
        "expired": offsets_out(message.expired),
        "end_offsets": offsets_out(message.end_offsets),
    }
    json, users, items = orjson.dumps(rest), _strings_out(message.users), _strings_out(message.items)
    header = _HEADER.pack(len(message), len(json), len(users), len(items))
    columns = [getattr(message, name).astype(dtype, copy=False).tobytes() for name, dtype in _COLUMNS]
    return b"".join([_BATCH, header, *columns, json, users, items])


def decode_message(data: bytes) -> Received:
    """The message in `data`. Its arrays share the memory of `data` and cannot be written to."""
    if data[:1] == _STATUS:
        status = orjson.loads(data[1:])
        status["end_offsets"] = offsets_in(status["end_offsets"])
        return FeederStatus(**status)
    if data[:1] == _REFUSED:
        return Refused.from_json(data[1:])
    n, json_size, users_size, items_size = _HEADER.unpack_from(data, 1)
    at = 1 + _HEADER.size
    columns: dict[str, NDArray[Any]] = {}
    for name, dtype in _COLUMNS:
        columns[name] = np.frombuffer(data, dtype=dtype, count=n, offset=at)
        at += columns[name].nbytes
    rest = orjson.loads(data[at : at + json_size])
    at += json_size
    return MicroBatch(
        users=_strings_in(data[at : at + users_size]),
        items=_strings_in(data[at + users_size : at + users_size + items_size]),
        **columns,
        catalogue=tuple(ItemChange(*change) for change in rest["catalogue"]),
        ranges=tuple(OffsetRange(*r) for r in rest["ranges"]),
        records=rest["records"],
        rejected=rest["rejected"],
        ahead=tuple((topic, partition, offset) for topic, partition, offset in rest["ahead"]),
        misrouted=rest["misrouted"],
        expired=offsets_in(rest["expired"]),
        end_offsets=offsets_in(rest["end_offsets"]),
    )


def _strings_out(strings: tuple[str, ...]) -> bytes:
    lengths = np.array([len(s) for s in strings], dtype="<u4")
    return struct.pack("<I", len(strings)) + lengths.tobytes() + "".join(strings).encode()


def _strings_in(data: bytes) -> tuple[str, ...]:
    (count,) = struct.unpack_from("<I", data)
    text = data[4 + 4 * count :].decode()
    ends = np.frombuffer(data, dtype="<u4", count=count, offset=4).cumsum().tolist()
    return tuple(text[start:end] for start, end in zip([0, *ends], ends, strict=False))
