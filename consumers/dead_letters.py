"""Delivers dead letters to their topics: waits out faults that may pass, and reports the letters a topic refuses."""

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from consumers.kafka_clients import KafkaConfig, make_producer
from consumers.letters import DeadLetter, Refused
from consumers.logs import Unrepeated

logger = logging.getLogger(__name__)
logger.addFilter(Unrepeated())

_RETRY_S = 0.5
_FATAL_FAILURES = 3  # a letter is refused after fatal errors of so many producers in a row
_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.RECORD_LIST_TOO_LARGE)
# caused by one record, and reported for every record of its batch
_OF_ONE_RECORD = (*_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_TIMESTAMP)
_PASSING = frozenset(
    {
        # no broker, or none yet
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._SSL,
        KafkaError._AUTHENTICATION,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._WAIT_COORD,
        # a broker that cannot serve the partition at the moment
        KafkaError.UNKNOWN,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        # an idempotent producer that has lost its sequence: a new one begins another
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.UNKNOWN_PRODUCER_ID,
        KafkaError.INVALID_PRODUCER_EPOCH,
        # errors of the client itself: another record of the batch was refused, or the queue was purged
        KafkaError._INVALID_DIFFERENT_RECORD,
        KafkaError._PURGE_QUEUE,
        KafkaError._PURGE_INFLIGHT,
    }
)
"""Errors that may be gone at the next try. Any other error is the broker's final answer."""


class DeadLetters(Protocol):
    """Delivers letters and loses none. After a crash a letter may be delivered twice, with the same source offset."""

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """Begin to deliver. Does not wait for the broker and raises none of its errors."""

    def flush(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds. True once every letter sent is delivered or refused; False: call again."""

    def take_refused(self) -> list[Refused]:
        """The letters refused for good since the last call, uncut. The caller must keep them."""

    @property
    def waits_for(self) -> str:
        """Why letters are being sent again, as one line for people; '' if none are, or before the first error."""

    def close(self) -> None:
        """Free everything. Letters not yet flushed may be lost: the offsets of their records must not be stored."""


class MemoryDeadLetters:
    """For tests: keeps letters in a list. `refuse(letter)` returns why it is refused, or '' to take it."""

    waits_for = ""

    def __init__(self, refuse: Callable[[DeadLetter], str] = lambda letter: "") -> None:
        self.letters: list[DeadLetter] = []
        self._refuse = refuse
        self._refused: list[Refused] = []

    def send(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            if error := self._refuse(letter):
                self._refused.append(Refused(letter, error))
            else:
                self.letters.append(letter)

    def flush(self, timeout_s: float) -> bool:
        return True

    def take_refused(self) -> list[Refused]:
        refused, self._refused = self._refused, []
        return refused

    def close(self) -> None:
        pass


class _Delivery:
    """One letter on its way to the broker. A letter that is too large is sent again with less of its value."""

    __slots__ = ("alone", "fatal", "letter", "limit", "sent")

    def __init__(self, letter: DeadLetter) -> None:
        self.letter = letter
        self.sent = letter  # the letter as it is sent: perhaps cut
        self.limit: int | None = None  # bytes of the value; None: all
        self.alone = False  # send it in a batch of its own
        self.fatal = 0  # producers that failed for good while they held it

    def shorten(self) -> bool:
        """Cut the letter further. False if there is nothing left to cut."""
        if self.limit is None:
            # The record fitted without our headers, so a little less is nearly always enough.
            self.limit = max(0, len(self.letter.value or b"") - 16_384)
        elif self.limit > 0:
            self.limit //= 2
        elif self.sent.own_headers or self.sent.key is not None:
            self.sent = self.sent.bare()
            return True
        else:
            return False
        self.sent = self.letter.cut(self.limit)
        return True


class KafkaDeadLetters:
    """Delivers to Kafka, and waits out an outage.

    A broker refuses a batch as a whole, for one bad record in it. So each letter of a refused batch is sent once more,
    in a batch of its own.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        extra: KafkaConfig | None = None,
        make_producer: Callable[[str, Mapping[str, Any], KafkaConfig | None], Producer] = make_producer,
    ) -> None:
        self._why_fatal = ""  # what a producer that fails for good says once, and not with the letters it held
        settings: dict[str, Any] = {
            "message.timeout.ms": 0,  # never give a letter up
            "socket.timeout.ms": 10_000,
            "linger.ms": 5,
            # How long a missing topic is waited for, as if it had just been made (default 30 s).
            "topic.metadata.propagation.max.ms": 5_000,
            # A letter is its record plus some headers, so it may be larger than the limit that the record met.
            "message.max.bytes": 1_000_000_000,
            # The broker's limit counts whole batches, so a large letter is to have a batch of its own.
            "batch.size": 65_536,
        }
        settings |= {"error_cb": self._on_client_error}
        self._new_producer = functools.partial(make_producer, bootstrap, settings, extra)
        self._producer = self._new_producer()
        self._waiting: list[_Delivery] = []  # not with the producer yet: new ones, and those to send again
        self._suspects: list[_Delivery] = []  # each to be sent in a batch of its own
        self._in_flight: set[_Delivery] = set()
        self._refused: list[Refused] = []
        self._retry_at = 0.0
        self.waits_for = ""

    def send(self, letters: Sequence[DeadLetter]) -> None:
        self._waiting += [_Delivery(letter) for letter in letters]
        self._produce()

    def flush(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self._waiting or self._suspects or self._in_flight:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._produce()
            self._take_reports(min(left, 0.1))
            if (self._waiting or self._suspects) and self._retry_at > time.monotonic():
                time.sleep(min(max(0.0, deadline - time.monotonic()), 0.05))
        self.waits_for = ""
        return True

    def take_refused(self) -> list[Refused]:
        refused, self._refused = self._refused, []
        return refused

    def close(self) -> None:
        self._in_flight.clear()
        self._producer.purge()
        with contextlib.suppress(KafkaException):  # a producer that failed for good raises here once more
            self._producer.flush(0)

    def _produce(self) -> None:
        if time.monotonic() < self._retry_at or any(each.alone for each in self._in_flight):
            return
        waiting, self._waiting = self._waiting, []
        if not waiting and not self._in_flight and self._suspects:
            waiting = [self._suspects.pop(0)]
        for n, delivery in enumerate(waiting):
            letter = delivery.sent

            def report(error: KafkaError | None, _: Message, delivery: _Delivery = delivery) -> None:
                self._on_report(delivery, error)

            self._in_flight.add(delivery)
            try:
                self._producer.produce(
                    letter.address,
                    key=letter.key,
                    value=letter.value,
                    headers=list(letter.headers),
                    on_delivery=report,
                )
            except BufferError:  # the producer's queue is full
                self._in_flight.discard(delivery)
                for each in waiting[n:]:
                    self._again(each)
                return
            except KafkaException as error:
                self._on_report(delivery, error.args[0])
        self._take_reports(0)

    def _take_reports(self, wait_s: float) -> None:
        """Take in the producer's delivery reports that are there, or come within `wait_s` seconds."""
        try:
            if wait_s > 0:
                self._producer.flush(wait_s)
            else:
                self._producer.poll(0)
        except KafkaException as error:
            self._replace_producer(error.args[0])

    def _on_report(self, delivery: _Delivery, error: KafkaError | None) -> None:
        if delivery not in self._in_flight:  # reported by a producer that has been replaced
            return
        self._in_flight.discard(delivery)
        if error is None:
            return
        if error.code() in _OF_ONE_RECORD and not delivery.alone:
            delivery.alone = True
            self._again(delivery)
        elif error.code() in _TOO_LARGE and delivery.shorten():
            self._again(delivery)
        elif error.fatal() or error.code() == KafkaError._FATAL:
            self._in_flight.add(delivery)
            self._replace_producer(error)
        elif error.code() in _PASSING:
            self._try_again(delivery, error)
        else:
            self._refuse(delivery, error)

    def _try_again(self, delivery: _Delivery, error: KafkaError) -> None:
        self.waits_for = self._words(error)
        logger.warning("a dead letter was not taken and is sent again: %s", self.waits_for)
        self._retry_at = time.monotonic() + _RETRY_S
        self._again(delivery)

    def _again(self, delivery: _Delivery) -> None:
        (self._suspects if delivery.alone else self._waiting).append(delivery)

    def _replace_producer(self, error: KafkaError) -> None:
        """A producer with a fatal error sends nothing more. The letters it held are sent by a new one."""
        held, self._in_flight = self._in_flight, set()
        for each in held:
            each.fatal += 1
            if each.fatal < _FATAL_FAILURES:
                self._try_again(each, error)
            else:
                self._refuse(each, error)
        self._why_fatal = ""
        self._producer = self._new_producer()

    def _on_client_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._why_fatal = error.str()

    def _words(self, error: KafkaError) -> str:
        """The broker's own, where the error says no more than that the producer has failed for good."""
        fatal = error.fatal() or error.code() == KafkaError._FATAL
        return self._why_fatal if fatal and self._why_fatal else error.str()

    def _refuse(self, delivery: _Delivery, error: KafkaError) -> None:
        words = self._words(error)
        logger.warning("%s refuses a dead letter: %s", delivery.letter.address, words)
        self._refused.append(Refused(delivery.letter, words))
