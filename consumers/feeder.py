"""The feeder's loop: poll → decode → dead letters → batch → pipe. Its process is `feeder_process`."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from consumers.batcher import MicroBatcher
from consumers.dead_letters import DeadLetters
from consumers.decode import DecodeRules, decode
from consumers.events import DEFAULT_EVENT_WEIGHTS, FUTURE_TOLERANCE_MS
from consumers.letters import dead_letter
from consumers.micro_batch import MicroBatch
from consumers.pipe import FeederStatus, Received
from consumers.records import TopicPartition, offsets_in, offsets_out
from consumers.source import EventSource
from consumers.times import now_ms

_STATUS_EVERY_S = 1.0
_IDLE_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class FeederConfig:
    """The feeder's settings; sent to its process as JSON."""

    bootstrap: str
    events_topic: str = "events"
    items_topic: str = "items"
    start: Mapping[TopicPartition, int] = field(default_factory=dict)  # offsets to read next; others: from the earliest
    event_types: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_EVENT_WEIGHTS))  # type -> weight
    batch_events: int = 1024
    batch_wait_s: float = 0.05
    future_tolerance_ms: int = FUTURE_TOLERANCE_MS
    group_id: str = "tidemill-trainer"  # its committed offsets are for monitoring only
    kafka: Mapping[str, Any] = field(default_factory=dict)  # more librdkafka settings (TLS, SASL)

    def to_json(self) -> bytes:
        fields = {name: getattr(self, name) for name in self.__slots__}
        return orjson.dumps(fields | {"start": offsets_out(self.start)})

    @classmethod
    def from_json(cls, data: bytes) -> "FeederConfig":
        fields = orjson.loads(data)
        return cls(**fields | {"start": offsets_in(fields["start"])})


class Sender(Protocol):
    def send(self, message: Received) -> None:
        """Send a message; blocks until there is room. Raises ParentDied."""


class FeederLoop:
    """Reads records and sends micro-batches; one call of `step` after another.

    `items` is read to its end before the first event, so that the catalogue is never older than the events. A batch is
    sent only after the dead letters of its records: each is delivered, or refused and sent to the parent.
    """

    def __init__(
        self,
        config: FeederConfig,
        source: EventSource,
        dead_letters: DeadLetters,
        sender: Sender,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._config = config
        self._source = source
        self._dead_letters = dead_letters
        self._sender = sender
        self._clock = clock
        self._now_ms = now_ms
        self._rules = DecodeRules(config.event_types, config.items_topic, config.future_tolerance_ms)
        self._batcher = MicroBatcher(config.batch_events, config.batch_wait_s, list(config.event_types), clock)
        self._batcher.start_at(config.start)
        self._items_read = False
        self._status_at = clock()
        self._assign(config.items_topic)

    def step(self) -> None:
        """Read records, send the batches that are due, and a status once a second.

        Blocks up to 0.1 s for records, and without limit while the pipe is full or dead letters wait for the broker.
        Raises ParentDied.
        """
        if not self._items_read and self._source.caught_up:
            self._begin_events()
        wait_s = self._batcher.wait_s()
        # Twice a batch: while one fills, the next poll's records are already being fetched.
        records = self._source.poll(2 * self._config.batch_events, _IDLE_POLL_S if wait_s is None else min(wait_s, 0.1))
        self._batcher.note_ends(self._source.end_offsets())
        for batch in self._batcher.skip(self._source.take_expired()):
            self._hand_on(batch)
        if records:
            decoded = decode(records, self._rules, self._now_ms())
            self._dead_letters.send([dead_letter(reject) for reject in decoded.rejects])
            for batch in self._batcher.add(decoded):
                self._hand_on(batch)
        self._batcher.pass_over(self._source.positions())
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
            why = self._dead_letters.waits_for
            self._say(False, "dead letters wait for the broker" + (f": {why}" if why else ""))
        for refused in self._dead_letters.take_refused():
            self._sender.send(refused)
        self._sender.send(batch)

    def _say(self, healthy: bool, message: str) -> None:
        self._sender.send(FeederStatus(healthy, message, self._items_read, self._source.end_offsets()))
        self._status_at = self._clock() + _STATUS_EVERY_S
