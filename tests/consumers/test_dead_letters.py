"""A reject reaches its topic as it came, says what was wrong, and is never given up."""

import threading
import time

import pytest

from consumers.dead_letters import KafkaDeadLetters, MemoryDeadLetters, dead_letter_headers
from consumers.decode import Reason, Reject
from consumers.kafka_source import KafkaSource
from consumers.records import Record
from tests import brokers


@pytest.fixture(params=["mock", pytest.param("real", marks=pytest.mark.slow)])
def bootstrap(request: pytest.FixtureRequest) -> str:
    return brokers.mock_cluster() if request.param == "mock" else brokers.real_broker()


@pytest.fixture
def topic() -> str:
    return brokers.unique_topic("rejected")


def reject_of(
    topic: str, value: bytes | None, key: bytes | None = b"u1", headers: tuple[tuple[str, bytes | None], ...] = ()
) -> Reject:
    return Reject(Record(topic, 3, 42, 0, key, value, headers), Reason.NOT_JSON, "nö")


def letters(bootstrap: str, topic: str, n: int) -> list[Record]:
    source = KafkaSource(bootstrap, "letters", refresh_s=0.1)
    source.assign({f"{topic}.dlq": {}})
    records: list[Record] = []
    deadline = time.monotonic() + 30
    while len(records) < n and time.monotonic() < deadline:
        records += source.poll(1000, 0.1)
    source.close()
    return records


def test_headers_say_what_was_wrong_and_where_after_the_records_own() -> None:
    reject = reject_of("events", b"junk", headers=(("trace", b"1"), ("null", None)))
    assert dead_letter_headers(reject) == (
        ("trace", b"1"),
        ("null", None),
        ("error.code", b"not_json"),
        ("error.message", "nö".encode()),
        ("source.topic", b"events"),
        ("source.partition", b"3"),
        ("source.offset", b"42"),
    )


def test_memory_keeps_them_all() -> None:
    dead = MemoryDeadLetters()
    dead.send([reject_of("events", b"a")])
    dead.send([reject_of("events", b"b")])
    assert dead.flush(0)
    assert [r.record.value for r in dead.rejects] == [b"a", b"b"]


@pytest.mark.parametrize(("key", "value"), [(b"\xff", b"\x00junk"), (None, b""), (b"u1", None)])
def test_bytes_and_key_arrive_as_they_came(bootstrap: str, topic: str, key: bytes | None, value: bytes | None) -> None:
    dead = KafkaDeadLetters(bootstrap)
    reject = reject_of(topic, value, key, (("trace", b"1"), ("null", None)))
    dead.send([reject])
    assert dead.flush(30)
    dead.close()
    (letter,) = letters(bootstrap, topic, 1)
    assert (letter.key, letter.value) == (key, value)
    assert letter.headers == dead_letter_headers(reject)


def test_a_record_near_the_limit_fits_with_its_headers(bootstrap: str, topic: str) -> None:
    dead = KafkaDeadLetters(bootstrap)
    value = b"x" * 1_048_000
    dead.send([reject_of(topic, value), reject_of(topic, b"small")])
    assert dead.flush(30)
    dead.close()
    got = {len(letter.value or b"") for letter in letters(bootstrap, topic, 2)}
    assert got == {len(value), 5}


@pytest.mark.slow
def test_what_the_broker_finds_too_large_is_cut_and_says_so(topic: str) -> None:
    bootstrap = brokers.real_broker()
    brokers.create_topic(bootstrap, f"{topic}.dlq", 1, **{"max.message.bytes": "100000"})
    dead = KafkaDeadLetters(bootstrap)
    dead.send([reject_of(topic, b"x" * 100_000), reject_of(topic, b"y" * 1_000_000, b"k" * 200_000)])
    assert dead.flush(60)
    dead.close()
    by_first = {(letter.value or b"k")[:1]: letter for letter in letters(bootstrap, topic, 2)}
    assert len(by_first[b"x"].value or b"") == 100_000 - 16_384
    assert by_first[b"x"].key == b"u1"
    assert by_first[b"x"].headers[-1] == ("error.value_truncated_from", b"100000")
    # A key that alone is too large cannot be kept.
    assert by_first[b"k"].key is None
    assert by_first[b"k"].headers[-1] == ("error.value_truncated_from", b"1000000")


@pytest.mark.slow
def test_an_outage_means_waiting_and_loses_none(topic: str) -> None:
    broker = brokers.new_real_broker()
    dead = KafkaDeadLetters(broker.bootstrap)
    dead.send([reject_of(topic, b"before")])
    assert dead.flush(30)
    broker.kill()
    dead.send([reject_of(topic, str(n).encode()) for n in range(500)])
    assert not dead.flush(1)
    restart = threading.Thread(target=broker.start)
    restart.start()
    assert dead.flush(60)
    restart.join()
    dead.close()
    values = {letter.value for letter in letters(broker.bootstrap, topic, 501)}
    assert values >= {b"before"} | {str(n).encode() for n in range(500)}
    broker.remove()
