"""The feeder: poll → decode → dead letters → batch → channel, in a process of its own.

Decoding at full rate would take the trainer's interpreter for itself; here it has its own. The parent starts it with
`start_feeder` and reads micro-batches. While the channel is full the feeder does not poll: that is the back-pressure.

It never outlives its parent: their one connection is its life-line, whose end it reads when the parent is gone, however
it went. Signals to the process group do not reach it, so that Ctrl-C lets the parent end it in good order.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import orjson

from consumers.batcher import MicroBatcher
from consumers.channel import ChannelReceiver, ChannelSender, FeederStatus, ParentDied, Received
from consumers.dead_letters import DeadLetters, KafkaDeadLetters
from consumers.decode import DecodeRules, decode
from consumers.events import DEFAULT_EVENT_WEIGHTS, FUTURE_TOLERANCE_MS
from consumers.kafka_source import KafkaSource
from consumers.logs import start_logging
from consumers.micro_batch import MicroBatch
from consumers.records import Offsets, TopicPartition
from consumers.source import EventSource

_STATUS_EVERY_S = 1.0
_IDLE_POLL_S = 0.1
_LAST_WORDS_S = 3.0  # after the parent's death, before the process ends whatever it is doing


@dataclass(frozen=True, slots=True)
class FeederConfig:
    """What a feeder must know; travels to its process as JSON."""

    bootstrap: str
    events_topic: str = "events"
    items_topic: str = "items"
    start: Mapping[TopicPartition, int] = field(default_factory=dict)  # next offsets; what is not named: from the start
    event_types: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_EVENT_WEIGHTS))  # type -> weight
    batch_events: int = 1024
    batch_wait_s: float = 0.05
    future_tolerance_ms: int = FUTURE_TOLERANCE_MS
    group_id: str = "tidemill-trainer"  # whose committed offsets show, for monitoring only, how far it has come
    kafka: Mapping[str, Any] = field(default_factory=dict)  # more librdkafka settings (TLS, SASL)

    def to_json(self) -> bytes:
        fields = {name: getattr(self, name) for name in self.__slots__}
        return orjson.dumps(fields | {"start": _offsets_out(self.start)})

    @classmethod
    def from_json(cls, data: bytes) -> "FeederConfig":
        fields = orjson.loads(data)
        return cls(**fields | {"start": _offsets_in(fields["start"])})


class Sender(Protocol):
    def send(self, message: Received) -> None:
        """Hand a message on, or wait until there is room. Raises ParentDied."""


class FeederLoop:
    """One step after another of the way from records to the channel.

    `items` is read to its end before the first event, so that events meet a catalogue that is as old as they are at
    most. A batch leaves only when the dead letters of its records are delivered.
    """

    def __init__(
        self,
        config: FeederConfig,
        source: EventSource,
        dead_letters: DeadLetters,
        sender: Sender,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._source = source
        self._dead_letters = dead_letters
        self._sender = sender
        self._clock = clock
        self._wall_clock = wall_clock
        self._rules = DecodeRules(config.event_types, config.items_topic, config.future_tolerance_ms)
        self._batcher = MicroBatcher(config.batch_events, config.batch_wait_s, list(config.event_types), clock)
        self._batcher.start_at(config.start)
        self._items_read = False
        self._status_at = clock()
        self._assign(config.items_topic)

    def step(self) -> None:
        """Take what there is, hand on what is due, say how it goes once a second. Blocks 0.1 s without records."""
        if not self._items_read and self._source.caught_up:
            self._begin_events()
        wait_s = self._batcher.wait_s()
        # Twice a batch: while one fills, the next poll's records are already being fetched.
        records = self._source.poll(2 * self._config.batch_events, _IDLE_POLL_S if wait_s is None else min(wait_s, 0.1))
        self._batcher.note_ends(self._source.end_offsets())
        for batch in self._batcher.skip(self._source.take_expired()):
            self._hand_on(batch)
        if records:
            decoded = decode(records, self._rules, int(self._wall_clock() * 1000))
            self._dead_letters.send(decoded.rejects)
            for batch in self._batcher.add(decoded):
                self._hand_on(batch)
        due = self._batcher.due()
        if due is not None:
            self._hand_on(due)
        if self._clock() >= self._status_at:
            self._say(*self._source.status)

    def _begin_events(self) -> None:
        rest = self._batcher.flush()
        if rest is not None:
            self._hand_on(rest)
        self._items_read = True
        self._say(*self._source.status)
        self._assign(self._config.events_topic)

    def _assign(self, topic: str) -> None:
        self._source.assign(
            {topic: {p.partition: offset for p, offset in self._config.start.items() if p.topic == topic}}
        )

    def _hand_on(self, batch: MicroBatch) -> None:
        while not self._dead_letters.flush(_STATUS_EVERY_S / 2):
            self._say(False, "dead letters wait for the broker")
        self._sender.send(batch)

    def _say(self, healthy: bool, message: str) -> None:
        self._sender.send(FeederStatus(healthy, message, self._items_read, self._source.end_offsets()))
        self._status_at = self._clock() + _STATUS_EVERY_S


def run(config: FeederConfig, connection: Connection) -> None:
    """The feeder process: reads until the parent's end of `connection` is closed."""
    orders = _Orders(connection)
    source = KafkaSource(config.bootstrap, config.group_id, extra=config.kafka)
    dead_letters = KafkaDeadLetters(config.bootstrap, extra=config.kafka)
    try:
        loop = FeederLoop(config, source, dead_letters, ChannelSender(connection))
        while not orders.ended:
            loop.step()
            source.commit(orders.take_commit())
    except ParentDied:
        pass
    finally:
        source.close()
        dead_letters.close()


class _Orders:
    """What the parent says: offsets to commit; and its end."""

    def __init__(self, connection: Connection) -> None:
        self.ended = False
        self._connection = connection
        self._parent = os.getppid()
        self._lock = threading.Lock()
        self._commit: dict[TopicPartition, int] = {}
        threading.Thread(target=self._listen, name="feeder-orders", daemon=True).start()

    def take_commit(self) -> Offsets:
        with self._lock:
            commit, self._commit = self._commit, {}
        return commit

    def _listen(self) -> None:
        # The parent's id is watched too: a process that it forked may hold its end of the connection open.
        with contextlib.suppress(EOFError, OSError):
            while os.getppid() == self._parent:
                if self._connection.poll(1.0):
                    offsets = _offsets_in(orjson.loads(self._connection.recv_bytes()))
                    with self._lock:
                        self._commit.update(offsets)
        self.ended = True
        time.sleep(_LAST_WORDS_S)
        os._exit(1)


class Feeder:
    """The parent's handle of a feeder process."""

    def __init__(self, process: subprocess.Popen[bytes], connection: Connection, capacity: int) -> None:
        self._process = process
        self._connection = connection
        self._receiver = ChannelReceiver(connection, capacity)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def receive(self, timeout_s: float) -> Received | None:
        """The next batch or status, or None when none comes in time. Raises FeederDied once all it sent is received."""
        return self._receiver.receive(timeout_s)

    def commit(self, offsets: Offsets) -> None:
        """Let the feeder leave `offsets` with the broker, some time, for monitoring. Says nothing when it is dead."""
        with contextlib.suppress(OSError):
            self._connection.send_bytes(orjson.dumps(_offsets_out(offsets)))

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the process; kills it when it has not ended after `timeout_s` seconds. May be called twice."""
        self._receiver.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def start_feeder(config: FeederConfig, capacity: int = 8) -> Feeder:
    """Start a feeder process. At most `capacity` batches wait on this side (see `ChannelReceiver`)."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "consumers.feeder", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": _python_path()},
        )
    connection = Connection(ours.detach())
    with contextlib.suppress(OSError):  # it has died already: the first `receive` says so
        connection.send_bytes(config.to_json())
    return Feeder(process, connection, capacity)


def _python_path() -> str:
    """So that the child finds this very package, also where it is not installed."""
    here = str(Path(__file__).resolve().parent.parent)
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])


def _offsets_out(offsets: Offsets) -> list[tuple[str, int, int]]:
    return [(p.topic, p.partition, offset) for p, offset in offsets.items()]


def _offsets_in(offsets: list[tuple[str, int, int]]) -> dict[TopicPartition, int]:
    return {TopicPartition(topic, partition): offset for topic, partition, offset in offsets}


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as when a service manager sends it to all: the parent decides
    start_logging("feeder", logging.WARNING)
    connection = Connection(int(sys.argv[1]))
    try:
        config = FeederConfig.from_json(connection.recv_bytes())
    except EOFError:
        return
    run(config, connection)


if __name__ == "__main__":
    main()
