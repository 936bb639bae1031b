"""A reject reaches its topic as it came and is never given up; what its topic refuses for good is said."""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from consumers.dead_letters import KafkaDeadLetters, MemoryDeadLetters
from consumers.decode import Reason, Reject
from consumers.letters import DeadLetter, Refused, dead_letter
from consumers.records import Record
from tests import brokers
from tests.refusing_kafka import RefusingKafka, Request


@pytest.fixture(params=["mock", pytest.param("real", marks=pytest.mark.slow)])
def bootstrap(request: pytest.FixtureRequest) -> str:
    return brokers.mock_cluster() if request.param == "mock" else brokers.real_broker()


@pytest.fixture
def topic() -> str:
    return brokers.unique_topic("rejected")


def letter_of(
    topic: str, value: bytes | None, key: bytes | None = b"u1", headers: tuple[tuple[str, bytes | None], ...] = ()
) -> DeadLetter:
    return dead_letter(Reject(Record(topic, 3, 42, 0, key, value, headers), Reason.NOT_JSON, "nö"))


def letters(bootstrap: str, topic: str, n: int) -> list[Record]:
    return brokers.read(bootstrap, f"{topic}.dlq", n)


def test_memory_keeps_them_all() -> None:
    dead = MemoryDeadLetters()
    dead.send([letter_of("events", b"a")])
    dead.send([letter_of("events", b"b")])
    assert dead.flush(0)
    assert [letter.value for letter in dead.letters] == [b"a", b"b"]


@pytest.mark.parametrize(("key", "value"), [(b"\xff", b"\x00junk"), (None, b""), (b"u1", None)])
def test_bytes_and_key_arrive_as_they_came(bootstrap: str, topic: str, key: bytes | None, value: bytes | None) -> None:
    dead = KafkaDeadLetters(bootstrap)
    sent = letter_of(topic, value, key, (("trace", b"1"), ("null", None)))
    dead.send([sent])
    assert dead.flush(30)
    dead.close()
    (letter,) = letters(bootstrap, topic, 1)
    assert (letter.key, letter.value) == (key, value)
    assert letter.headers == sent.headers


def test_a_record_near_the_limit_fits_with_its_headers(bootstrap: str, topic: str) -> None:
    dead = KafkaDeadLetters(bootstrap)
    value = b"x" * 1_048_000
    dead.send([letter_of(topic, value), letter_of(topic, b"small")])
    assert dead.flush(30)
    dead.close()
    got = {len(letter.value or b"") for letter in letters(bootstrap, topic, 2)}
    assert got == {len(value), 5}


@pytest.mark.slow
def test_what_the_broker_finds_too_large_is_cut_and_says_so(topic: str) -> None:
    bootstrap = brokers.real_broker()
    brokers.create_topic(bootstrap, f"{topic}.dlq", 1, **{"max.message.bytes": "100000"})
    dead = KafkaDeadLetters(bootstrap)
    dead.send([letter_of(topic, b"x" * 100_000), letter_of(topic, b"y" * 1_000_000, b"k" * 200_000)])
    assert dead.flush(60)
    dead.close()
    by_first = {(letter.value or b"k")[:1]: letter for letter in letters(bootstrap, topic, 2)}
    assert len(by_first[b"x"].value or b"") == 100_000 - 16_384
    assert by_first[b"x"].key == b"u1"
    assert by_first[b"x"].headers[-1] == ("error.value_truncated_from", b"100000")
    # A key that alone is too large cannot be kept.
    assert by_first[b"k"].key is None
    assert by_first[b"k"].headers[-1] == ("error.value_truncated_from", b"1000000")


class FakeProducer:
    """Answers each record at the next flush, by `answer(record)`: an error's code, or None for "it is there"."""

    def __init__(self, answer: Callable[[dict[str, Any]], int | KafkaError | None]) -> None:
        self.delivered: list[dict[str, Any]] = []
        self.made = 0
        self._answer = answer
        self._queue: list[dict[str, Any]] = []

    def make(self, bootstrap: str, settings: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> Producer:
        self.made += 1
        self._queue.clear()
        return cast(Producer, self)

    def produce(self, topic: str, **record: Any) -> None:
        self._queue.append({"topic": topic, **record})

    def poll(self, timeout: float) -> None:
        pass

    def flush(self, timeout: float) -> None:
        queue, self._queue = self._queue, []
        for record in queue:
            error = self._answer(record)
            if error is None:
                self.delivered.append(record)
            record["on_delivery"](KafkaError(error) if isinstance(error, int) else error, None)


REFUSALS = [
    KafkaError.INVALID_RECORD,  # a compacted topic, and no key
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.POLICY_VIOLATION,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.TOPIC_EXCEPTION,  # a name that cannot be
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
]


@pytest.mark.parametrize("code", REFUSALS)
def test_what_is_refused_for_good_is_said_and_holds_up_nothing_else(code: int) -> None:
    producer = FakeProducer(lambda record: code if record["value"] == b"bad" else None)
    dead = KafkaDeadLetters("", make_producer=producer.make)
    bad = letter_of("events", b"bad")
    dead.send([letter_of("events", b"a"), bad, letter_of("events", b"b")])
    assert dead.flush(5)
    assert dead.take_refused() == [Refused(bad, KafkaError(code).str())]
    assert dead.take_refused() == []
    assert [record["value"] for record in producer.delivered] == [b"a", b"b"]


@pytest.mark.parametrize(
    "code",
    [
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._MSG_TIMED_OUT,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        KafkaError._INVALID_DIFFERENT_RECORD,  # another of its batch was refused
    ],
)
def test_what_may_pass_by_itself_is_waited_for(code: int) -> None:
    answers = [code, None]
    producer = FakeProducer(lambda record: answers.pop(0))
    dead = KafkaDeadLetters("", make_producer=producer.make)
    dead.send([letter_of("events", b"a")])
    assert not dead.flush(0.1)
    assert dead.waits_for == KafkaError(code).str()
    assert dead.flush(5)
    assert dead.waits_for == ""
    assert dead.take_refused() == []
    assert [record["value"] for record in producer.delivered] == [b"a"]


def test_a_producer_that_fails_for_good_is_refused_in_the_broker_s_words() -> None:
    """librdkafka says them once, aside; with each letter it says no more than that its client has failed."""
    settings: dict[str, Any] = {}

    def answer(record: dict[str, Any]) -> KafkaError:
        settings["error_cb"](KafkaError(KafkaError._FATAL, "Broker: Topic authorization failed", True))
        return KafkaError(KafkaError._FATAL, "Local: Fatal error", True)

    producer = FakeProducer(answer)

    def make(bootstrap: str, given: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> Producer:
        settings.update(given)
        return producer.make(bootstrap, given, extra)

    dead = KafkaDeadLetters("", make_producer=make)
    bad = letter_of("events", b"bad")
    dead.send([bad])
    assert dead.flush(10)
    (refused,) = dead.take_refused()
    assert refused == Refused(bad, "Broker: Topic authorization failed")


def fatal(record: object) -> KafkaError:
    return KafkaError(KafkaError._FATAL, "no right to number its records", True)


def test_a_producer_that_fails_for_good_is_replaced_and_what_it_held_is_sent_by_the_next() -> None:
    answers = [fatal(None)]
    producer = FakeProducer(lambda record: answers.pop() if answers else None)
    dead = KafkaDeadLetters("", make_producer=producer.make)
    dead.send([letter_of("events", b"a"), letter_of("events", b"b")])
    assert dead.flush(5)
    assert producer.made == 2
    assert {record["value"] for record in producer.delivered} == {b"a", b"b"}
    assert dead.take_refused() == []


@pytest.mark.parametrize("call", ["flush", "poll"])
def test_that_a_producer_has_failed_for_good_is_heard_from_any_of_its_calls(call: str) -> None:
    producer = FakeProducer(lambda record: None)
    works = getattr(producer, call)

    def fails(timeout: float) -> None:
        setattr(producer, call, works)
        raise KafkaException(fatal(None))

    setattr(producer, call, fails)
    dead = KafkaDeadLetters("", make_producer=producer.make)
    dead.send([letter_of("events", b"a"), letter_of("events", b"b")])
    assert dead.flush(5)
    assert producer.made == 2
    assert {record["value"] for record in producer.delivered} == {b"a", b"b"}
    assert dead.take_refused() == []


def test_where_every_producer_fails_for_good_the_letter_is_refused() -> None:
    producer = FakeProducer(fatal)
    dead = KafkaDeadLetters("", make_producer=producer.make)
    letter = letter_of("events", b"a")
    dead.send([letter])
    assert dead.flush(10)
    assert dead.take_refused() == [Refused(letter, "no right to number its records")]


def test_a_letter_that_spoils_its_batch_is_found_and_the_others_are_taken_whole() -> None:
    """A broker refuses the batch as a whole, and says the same of each record in it."""
    producer = FakeProducer(lambda record: None)

    def refuse_batch(timeout: float) -> None:
        queue, producer._queue = producer._queue, []
        bad = any(record["key"] is None for record in queue)
        for record in queue:
            if not bad:
                producer.delivered.append(record)
            record["on_delivery"](KafkaError(KafkaError.INVALID_RECORD) if bad else None, None)

    producer.flush = refuse_batch  # type: ignore[method-assign]
    dead = KafkaDeadLetters("", make_producer=producer.make)
    bad = letter_of("events", b"bad", None)
    dead.send([letter_of("events", str(n).encode()) for n in range(5)])
    dead.send([bad])
    assert dead.flush(5)
    assert [record["value"] for record in producer.delivered] == [str(n).encode() for n in range(5)]
    assert [refused.letter for refused in dead.take_refused()] == [bad]


def test_too_large_without_value_key_and_headers_is_refused_and_kept_whole() -> None:
    sizes: list[tuple[int, bool, int]] = []

    def answer(record: dict[str, Any]) -> int:
        sizes.append((len(record["value"]), record["key"] is not None, len(record["headers"])))
        return KafkaError.MSG_SIZE_TOO_LARGE

    dead = KafkaDeadLetters("", make_producer=FakeProducer(answer).make)
    letter = letter_of("events", b"x" * 40_000, b"k", (("own", b"h"),))
    dead.send([letter])
    assert dead.flush(5)
    assert dead.take_refused() == [Refused(letter, KafkaError(KafkaError.MSG_SIZE_TOO_LARGE).str())]
    assert sizes[:4] == [(40_000, True, 6)] * 2 + [(40_000 - 16_384, True, 7), (11_808, True, 7)]
    assert sizes[-2:] == [(0, True, 7), (0, False, 6)]


@pytest.fixture
def refusing() -> Iterator[RefusingKafka]:
    made = RefusingKafka()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("request_", "error", "told"),
    [
        (Request.PRODUCE, KafkaError.TOPIC_AUTHORIZATION_FAILED, "Topic authorization failed"),
        (Request.PRODUCE, KafkaError.INVALID_RECORD, "failed to validate record"),
        (Request.PRODUCE, KafkaError.MSG_SIZE_TOO_LARGE, "Message size too large"),
        (Request.PRODUCE, KafkaError.POLICY_VIOLATION, "Policy violation"),
        (Request.PRODUCE, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "sequence desynchronization"),
        (Request.INIT_PRODUCER_ID, KafkaError.CLUSTER_AUTHORIZATION_FAILED, ""),
    ],
)
def test_what_the_client_makes_of_a_refusal_is_one(
    refusing: RefusingKafka, request_: Request, error: int, told: str
) -> None:
    refusing.refuse(request_, error)
    dead = KafkaDeadLetters(refusing.bootstrap)
    sent = [letter_of("events", str(n).encode(), str(n).encode()) for n in range(20)]
    dead.send(sent)
    assert dead.flush(30)
    refused = dead.take_refused()
    assert {each.letter for each in refused} == set(sent)
    assert all(told in each.error for each in refused)
    dead.close()


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (Request.PRODUCE, KafkaError.NOT_LEADER_FOR_PARTITION),
        (Request.PRODUCE, KafkaError.NOT_ENOUGH_REPLICAS),
        (Request.PRODUCE, KafkaError.REQUEST_TIMED_OUT),
        (Request.PRODUCE, KafkaError.KAFKA_STORAGE_ERROR),
        (Request.PRODUCE, KafkaError.UNKNOWN),
        (Request.INIT_PRODUCER_ID, KafkaError.COORDINATOR_LOAD_IN_PROGRESS),
    ],
)
def test_what_the_client_makes_of_a_passing_trouble_is_waited_for(
    refusing: RefusingKafka, request_: Request, error: int
) -> None:
    refusing.refuse(request_, error)
    dead = KafkaDeadLetters(refusing.bootstrap)
    dead.send([letter_of("events", str(n).encode()) for n in range(20)])
    assert not dead.flush(1)
    refusing.allow(request_)
    assert dead.flush(30)
    assert dead.take_refused() == []
    assert len({letter.value for letter in letters(refusing.bootstrap, "events", 20)}) == 20
    dead.close()


@pytest.mark.slow
def test_a_real_broker_refuses_for_good_and_takes_the_rest(topic: str) -> None:
    bootstrap = brokers.real_broker()
    brokers.create_topic(bootstrap, f"{topic}.dlq", 1, **{"cleanup.policy": "compact"})
    tight = brokers.unique_topic("tight")
    brokers.create_topic(bootstrap, f"{tight}.dlq", 1, **{"max.message.bytes": "100"})
    dead = KafkaDeadLetters(bootstrap)
    without_key, too_large = letter_of(topic, b"no key", None), letter_of(tight, b"x")
    dead.send([letter_of(topic, str(n).encode()) for n in range(50)])
    dead.send([without_key, too_large])
    dead.send([letter_of(topic, str(n).encode()) for n in range(50, 100)])
    assert dead.flush(30)
    dead.close()
    refused = {refused.letter: refused.error for refused in dead.take_refused()}
    assert refused.keys() == {without_key, too_large}
    assert all(refused.values())
    assert {letter.value for letter in letters(bootstrap, topic, 100)} == {str(n).encode() for n in range(100)}


@pytest.mark.slow
def test_an_outage_means_waiting_and_loses_none(topic: str) -> None:
    broker = brokers.new_real_broker()
    dead = KafkaDeadLetters(broker.bootstrap)
    dead.send([letter_of(topic, b"before")])
    assert dead.flush(30)
    broker.kill()
    dead.send([letter_of(topic, str(n).encode()) for n in range(500)])
    assert not dead.flush(1)
    restart = threading.Thread(target=broker.start)
    restart.start()
    assert dead.flush(60)
    restart.join()
    dead.close()
    values = {letter.value for letter in letters(broker.bootstrap, topic, 501)}
    assert values >= {b"before"} | {str(n).encode() for n in range(500)}
    broker.remove()
