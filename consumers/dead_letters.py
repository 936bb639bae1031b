"""Where rejects go: `<topic>.dlq`, with their bytes as they came and headers that say what was wrong."""

import functools
import logging
import time
from collections.abc import Sequence
from typing import Protocol

from confluent_kafka import KafkaError, KafkaException, Message

from consumers.decode import Reject
from consumers.kafka_clients import KafkaConfig, make_producer
from consumers.records import Headers

logger = logging.getLogger(__name__)

DLQ_SUFFIX = ".dlq"
_TRUNCATED_FROM = "error.value_truncated_from"
_RETRY_S = 0.5
_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE)


class DeadLetters(Protocol):
    """Takes rejects and loses none. After a crash one may be there twice, with the same source offset."""

    def send(self, rejects: Sequence[Reject]) -> None:
        """Begin to deliver `rejects`. Does not wait for the broker and raises nothing of it."""

    def flush(self, timeout_s: float) -> bool:
        """Whether everything sent is delivered; waits for it up to `timeout_s` seconds. False means: call again."""

    def close(self) -> None:
        """Free everything. What `flush` has not reported as delivered may be lost: its offsets must not be kept."""


def dead_letter_headers(reject: Reject) -> Headers:
    """The record's own headers, then the contract's; where a name is there twice the last one is ours."""
    record = reject.record
    return (
        *record.headers,
        ("error.code", reject.code.value.encode()),
        ("error.message", reject.message.encode(errors="replace")),
        ("source.topic", record.topic.encode()),
        ("source.partition", str(record.partition).encode()),
        ("source.offset", str(record.offset).encode()),
    )


class MemoryDeadLetters:
    """Keeps them in a list."""

    def __init__(self) -> None:
        self.rejects: list[Reject] = []

    def send(self, rejects: Sequence[Reject]) -> None:
        self.rejects += rejects

    def flush(self, timeout_s: float) -> bool:
        return True

    def close(self) -> None:
        pass


class _Letter:
    """One reject on its way. A broker that finds it too large gets it with less and less of its value."""

    __slots__ = ("bare", "limit", "reject")

    def __init__(self, reject: Reject) -> None:
        self.reject = reject
        self.limit: int | None = None  # bytes of the value, None: all
        self.bare = False  # without the record's own key and headers, when even no value is not enough

    def shorten(self) -> None:
        if self.limit is None:
            # The record fitted without our headers, so a little less is nearly always enough.
            self.limit = max(0, len(self.reject.record.value or b"") - 16_384)
        else:
            self.bare = self.limit == 0
            self.limit //= 2

    def key(self) -> bytes | None:
        return None if self.bare else self.reject.record.key

    def value(self) -> bytes | None:
        value = self.reject.record.value
        return value if value is None or self.limit is None else value[: self.limit]

    def headers(self) -> list[tuple[str, str | bytes | None]]:
        headers = dead_letter_headers(self.reject)
        if self.bare:
            headers = headers[len(self.reject.record.headers) :]
        if self.limit is not None:
            headers += ((_TRUNCATED_FROM, str(len(self.reject.record.value or b"")).encode()),)
        return list(headers)


class KafkaDeadLetters:
    """Delivers to Kafka, and tries again until the broker has it: an outage means waiting."""

    def __init__(self, bootstrap: str, *, extra: KafkaConfig | None = None) -> None:
        settings = {
            "message.timeout.ms": 0,  # never give one up
            "socket.timeout.ms": 10_000,
            "linger.ms": 5,
            # A letter is its record and some headers more, so the limit that the record met is too low here.
            "message.max.bytes": 1_000_000_000,
            # One large record a batch: the broker's limit counts whole batches.
            "batch.size": 65_536,
        }
        self._make = functools.partial(make_producer, bootstrap, settings, extra)
        self._producer = self._make()
        self._waiting: list[_Letter] = []  # not with the producer: new ones, and refused ones to try again
        self._in_flight: set[_Letter] = set()
        self._retry_at = 0.0

    def send(self, rejects: Sequence[Reject]) -> None:
        self._waiting += [_Letter(reject) for reject in rejects]
        self._produce()

    def flush(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self._waiting or self._in_flight:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._produce()
            self._producer.flush(min(left, 0.1))
            if self._waiting and self._retry_at > time.monotonic():
                time.sleep(min(max(0.0, deadline - time.monotonic()), 0.05))
        return True

    def close(self) -> None:
        self._producer.purge()
        self._producer.flush(0)

    def _produce(self) -> None:
        if time.monotonic() < self._retry_at:
            return
        waiting, self._waiting = self._waiting, []
        for n, letter in enumerate(waiting):
            record = letter.reject.record

            def delivered(error: KafkaError | None, _: Message, letter: _Letter = letter) -> None:
                self._on_delivery(letter, error)

            self._in_flight.add(letter)
            try:
                self._producer.produce(
                    record.topic + DLQ_SUFFIX,
                    key=letter.key(),
                    value=letter.value(),
                    headers=letter.headers(),
                    on_delivery=delivered,
                )
            except BufferError:  # the producer's queue is full
                self._in_flight.discard(letter)
                self._waiting += waiting[n:]
                return
            except KafkaException as error:
                self._on_delivery(letter, error.args[0])
        self._producer.poll(0)

    def _on_delivery(self, letter: _Letter, error: KafkaError | None) -> None:
        if letter not in self._in_flight:  # it was taken from a producer that has failed
            return
        self._in_flight.discard(letter)
        if error is None:
            return
        self._waiting.append(letter)
        if error.code() in _TOO_LARGE:
            letter.shorten()
            return
        logger.warning("a dead letter was refused and is sent again: %s", error.str())
        self._retry_at = time.monotonic() + _RETRY_S
        if error.fatal() or error.code() == KafkaError._FATAL:
            # An idempotent producer that has lost its place sends nothing more. What it held is sent by a new one.
            self._waiting += self._in_flight
            self._in_flight.clear()
            self._producer = self._make()
