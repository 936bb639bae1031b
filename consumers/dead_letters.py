"""Bringing dead letters to their topics: what may pass by itself is waited for, what a topic refuses is said."""

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
_FATAL_FAILURES = 3  # of a letter with as many producers: it will not be otherwise with the next
_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.RECORD_LIST_TOO_LARGE)
_OF_ONE_RECORD = (*_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_TIMESTAMP)  # and of its whole batch
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
        # a broker that is busy with itself
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
        # a producer that has lost its place: the next one begins anew
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.UNKNOWN_PRODUCER_ID,
        KafkaError.INVALID_PRODUCER_EPOCH,
        # the client's own: another record of the batch was refused, or the client was emptied
        KafkaError._INVALID_DIFFERENT_RECORD,
        KafkaError._PURGE_QUEUE,
        KafkaError._PURGE_INFLIGHT,
    }
)
"""What may be over the next time. Anything else is an answer, and would be the same again."""


class DeadLetters(Protocol):
    """Delivers letters and loses none. After a crash one may be there twice, with the same source offset."""

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """Begin to deliver. Does not wait for the broker and raises nothing of it."""

    def flush(self, timeout_s: float) -> bool:
        """Whether everything sent is delivered or refused; waits up to `timeout_s` seconds. False means: call again."""

    def take_refused(self) -> list[Refused]:
        """What was refused for good since the last call, as it was sent: it is the caller's now."""

    @property
    def waits_for(self) -> str:
        """What is the matter with the letters that are tried again, for people; '' where nothing is known of it."""

    def close(self) -> None:
        """Free everything. What `flush` has not reported as delivered may be lost: its offsets must not be kept."""


class MemoryDeadLetters:
    """Keeps them in a list; `refuse` says why a letter is refused, or '' where it is not."""

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


class _Way:
    """One letter's way to the broker. One that is too large goes again with less and less of its value."""

    __slots__ = ("alone", "fatal", "letter", "limit", "now")

    def __init__(self, letter: DeadLetter) -> None:
        self.letter = letter
        self.now = letter  # as it is sent
        self.limit: int | None = None  # bytes of the value; None: all
        self.alone = False  # is sent by itself
        self.fatal = 0  # producers that have failed for good with it

    def shorten(self) -> bool:
        """False where nothing is left to take away."""
        if self.limit is None:
            # The record fitted without our headers, so a little less is nearly always enough.
            self.limit = max(0, len(self.letter.value or b"") - 16_384)
        elif self.limit > 0:
            self.limit //= 2
        elif self.now.own_headers or self.now.key is not None:
            self.now = self.now.bare()
            return True
        else:
            return False
        self.now = self.letter.cut(self.limit)
        return True


class KafkaDeadLetters:
    """Delivers to Kafka; an outage means waiting.

    A broker refuses a batch as a whole, so a letter that was refused for what it is goes once more, by itself.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        extra: KafkaConfig | None = None,
        make_producer: Callable[[str, Mapping[str, Any], KafkaConfig | None], Producer] = make_producer,
    ) -> None:
        settings = {
            "message.timeout.ms": 0,  # never give one up
            "socket.timeout.ms": 10_000,
            "linger.ms": 5,
            # A topic that is not there counts as made just now, and is waited for, so long (default 30 s).
            "topic.metadata.propagation.max.ms": 5_000,
            # A letter is its record and some headers more, so the limit that the record met is too low here.
            "message.max.bytes": 1_000_000_000,
            # One large record a batch: the broker's limit counts whole batches.
            "batch.size": 65_536,
        }
        self._new_producer = functools.partial(make_producer, bootstrap, settings, extra)
        self._producer = self._new_producer()
        self._waiting: list[_Way] = []  # not with the producer: new ones, and some to try again
        self._suspects: list[_Way] = []  # to be sent by themselves
        self._in_flight: set[_Way] = set()
        self._refused: list[Refused] = []
        self._retry_at = 0.0
        self.waits_for = ""

    def send(self, letters: Sequence[DeadLetter]) -> None:
        self._waiting += [_Way(letter) for letter in letters]
        self._produce()

    def flush(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self._waiting or self._suspects or self._in_flight:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._produce()
            self._hear(min(left, 0.1))
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
        with contextlib.suppress(KafkaException):  # that it has failed for good is nothing new
            self._producer.flush(0)

    def _produce(self) -> None:
        if time.monotonic() < self._retry_at or any(way.alone for way in self._in_flight):
            return
        waiting, self._waiting = self._waiting, []
        if not waiting and not self._in_flight and self._suspects:
            waiting = [self._suspects.pop(0)]
        for n, way in enumerate(waiting):
            letter = way.now

            def delivered(error: KafkaError | None, _: Message, way: _Way = way) -> None:
                self._on_delivery(way, error)

            self._in_flight.add(way)
            try:
                self._producer.produce(
                    letter.address,
                    key=letter.key,
                    value=letter.value,
                    headers=list(letter.headers),
                    on_delivery=delivered,
                )
            except BufferError:  # the producer's queue is full
                self._in_flight.discard(way)
                for each in waiting[n:]:
                    self._again(each)
                return
            except KafkaException as error:
                self._on_delivery(way, error.args[0])
        self._hear(0)

    def _hear(self, wait_s: float) -> None:
        """What has become of letters, and of more of them in `wait_s` seconds."""
        try:
            if wait_s > 0:
                self._producer.flush(wait_s)
            else:
                self._producer.poll(0)
        except KafkaException as error:
            self._begin_anew(error.args[0])

    def _on_delivery(self, way: _Way, error: KafkaError | None) -> None:
        if way not in self._in_flight:  # it was taken from a producer that has failed
            return
        self._in_flight.discard(way)
        if error is None:
            return
        if error.code() in _OF_ONE_RECORD and not way.alone:
            way.alone = True
            self._again(way)
        elif error.code() in _TOO_LARGE and way.shorten():
            self._again(way)
        elif error.fatal() or error.code() == KafkaError._FATAL:
            self._in_flight.add(way)
            self._begin_anew(error)
        elif error.code() in _PASSING:
            self._try_again(way, error)
        else:
            self._refuse(way, error)

    def _try_again(self, way: _Way, error: KafkaError) -> None:
        logger.warning("a dead letter was not taken and is sent again: %s", error.str())
        self.waits_for = error.str()
        self._retry_at = time.monotonic() + _RETRY_S
        self._again(way)

    def _again(self, way: _Way) -> None:
        (self._suspects if way.alone else self._waiting).append(way)

    def _begin_anew(self, error: KafkaError) -> None:
        """An idempotent producer that has lost its place sends nothing more. What it held is sent by a new one."""
        held, self._in_flight = self._in_flight, set()
        for each in held:
            each.fatal += 1
            if each.fatal < _FATAL_FAILURES:
                self._try_again(each, error)
            else:
                self._refuse(each, error)
        self._producer = self._new_producer()

    def _refuse(self, way: _Way, error: KafkaError) -> None:
        logger.warning("%s refuses a dead letter: %s", way.letter.address, error.str())
        self._refused.append(Refused(way.letter, error.str()))
