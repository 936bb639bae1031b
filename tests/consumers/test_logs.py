import logging
import subprocess
import sys

import pytest
from confluent_kafka import Consumer

from consumers.logs import Unrepeated, librdkafka


class Log:
    """A logger with the filter, a clock that tests put forward, and what has passed."""

    def __init__(self) -> None:
        self.now = 0.0
        self.passed: list[str] = []
        self._logger = logging.Logger("test")
        self._logger.addFilter(Unrepeated(30.0, lambda: self.now))
        handler = logging.Handler()
        handler.emit = lambda record: self.passed.append(record.getMessage())  # type: ignore[method-assign]
        self._logger.addHandler(handler)

    def say(self, message: str, *arguments: object) -> list[str]:
        """What has passed because of it."""
        self.passed.clear()
        self._logger.warning(message, *arguments)
        return list(self.passed)


def test_what_is_repeated_passes_once_in_a_while_and_then_says_how_often_it_came() -> None:
    log = Log()
    assert log.say("port %d: refused after %d ms", 9092, 0) == ["port 9092: refused after 0 ms"]
    for milliseconds in range(29):
        log.now += 1
        assert log.say("port %d: refused after %d ms", 9092, milliseconds) == []
    log.now += 1
    assert log.say("port 9092: refused after 1 ms") == [
        "port 9092: refused after 1 ms (29 more like it since 30 s ago)"
    ]
    log.now += 30
    assert log.say("port 9092: refused after 2 ms") == ["port 9092: refused after 2 ms"]


def test_what_is_new_passes_at_once() -> None:
    log = Log()
    assert log.say("refused") == ["refused"]
    assert log.say("timed out") == ["timed out"]
    assert log.say("refused") == []


def test_of_many_kinds_the_oldest_are_forgotten() -> None:
    log = Log()
    words = ["".join(chr(ord("a") + (n // 26**k) % 26) for k in range(3)) for n in range(5000)]
    for word in words:
        assert log.say(word) == [word]
    assert log.say(words[-1]) == []
    assert log.say(words[0]) == [words[0]]


def test_a_percent_sign_in_what_is_repeated() -> None:
    log = Log()
    log.say("%s", "100% full")
    log.say("%s", "100% full")
    log.now += 30
    assert log.say("%s", "100% full") == ["100% full (1 more like it since 30 s ago)"]


def test_a_broker_that_is_away_is_one_line_and_not_hundreds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """librdkafka tries every few milliseconds here, as it does where a group member has lost its only broker."""
    (there,) = librdkafka.filters
    assert isinstance(there, Unrepeated)
    monkeypatch.setattr(librdkafka, "filters", [Unrepeated()])  # one to which nobody has said it yet
    settings = {"bootstrap.servers": "127.0.0.1:1", "group.id": "g", "reconnect.backoff.ms": 5}
    consumer = Consumer(settings | {"reconnect.backoff.max.ms": 5}, logger=librdkafka)
    consumer.subscribe(["events"])
    for _ in range(20):
        consumer.poll(0.05)
    consumer.close()
    assert len([record for record in caplog.records if "refused" in record.getMessage()]) == 1


def test_lines_have_the_time_the_process_and_the_level() -> None:
    program = "from consumers.logs import *; start_logging('feeder', 'INFO'); logging.getLogger('x').info('here')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == ""
    date, process, level, message = done.stderr.split()
    assert (len(date), date[-1]) == (24, "Z")
    assert (process, level, message) == ("feeder", "INFO", "here")
