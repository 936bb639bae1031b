"""`TIDEMILL_KAFKA_CONFIG`: what it may not set is refused by name, and what librdkafka refuses is one line too."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from consumers import dead_letters, kafka_clients, kafka_source, producer
from consumers.kafka_clients import WrongConfig, check_config
from consumers.kafka_config import NEEDED
from service.cli import main
from service.settings import CommonSettings

# Keys that the clients set and anybody may set otherwise: they change how fast something is, not whether it is right.
TUNING = {
    "fetch.wait.max.ms",
    "fetch.error.backoff.ms",
    "socket.timeout.ms",
    "reconnect.backoff.max.ms",
    "queued.max.messages.kbytes",
    "linger.ms",
    "batch.size",
    "message.max.bytes",  # a letter that is too large by it is shortened
    "queue.buffering.max.messages",
    "topic.metadata.propagation.max.ms",  # letters to a topic that is not there go to Redis later, or sooner
    "client.id",
    "log_level",
}


@pytest.mark.parametrize("key", [*NEEDED, "error_cb", "stats_cb", "topic.auto.offset.reset", "topic.partitioner"])
@pytest.mark.parametrize("value", ["true", 1])
def test_what_the_promises_rest_on_is_refused_by_name(key: str, value: str | int) -> None:
    with pytest.raises(ValueError, match="is not to be set: ") as refused:
        check_config({key: value})
    assert str(refused.value).startswith(key)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"no.such.key": 1}, 'No such configuration property: "no.such.key"'),
        ({"security.protocol": "tls"}, '"security.protocol"'),
        ({"socket.timeout.ms": "soon"}, '"socket.timeout.ms"'),
        ({"socket.timeout.ms": 1e99}, '"socket.timeout.ms"'),
        ({"linger.ms": True}, "queue.buffering.max.ms"),  # what librdkafka calls it
        ({"security.protocol": "sasl_ssl", "sasl.mechanism": "NONE"}, "Unsupported SASL mechanism: NONE"),
        ({"security.protocol": "ssl", "ssl.ca.location": "/no/such/file"}, "ssl.ca.location"),
        ({"acks": 1}, "`acks`"),
        ({"debug": "nothing"}, '"debug"'),
        ({"": ""}, "No such configuration property"),
        ({"auto.offset.reset": "latest", "partitioner": "random"}, "; partitioner is not to be set: "),
    ],
)
def test_what_cannot_be_is_one_line_that_names_it(
    config: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIDEMILL_KAFKA_CONFIG", json.dumps(config))
    assert main(["trainer"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("tidemill: wrong settings: TIDEMILL_KAFKA_CONFIG: ")
    assert says in line


@pytest.mark.parametrize(
    "config",
    [
        {},
        {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "t",
            "sasl.password": "s",
        },
        dict.fromkeys(TUNING - {"client.id", "log_level"}, 5000) | {"client.id": "shop", "log_level": 3},
        {"debug": "broker", "compression.codec": "lz4", "max.poll.interval.ms": 600_000},
    ],
)
def test_what_is_for_whoever_runs_it_is_taken(config: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert CommonSettings(kafka_config=config).kafka_config == config
    assert capfd.readouterr() == ("", "")


def test_settings_refuse_it_when_they_are_read() -> None:
    with pytest.raises(ValidationError, match=r"enable\.partition\.eof is not to be set"):
        CommonSettings(kafka_config={"enable.partition.eof": False})


def test_what_other_settings_make_wrong_is_a_line_where_the_client_is_made() -> None:
    with pytest.raises(WrongConfig, match=r"^TIDEMILL_KAFKA_CONFIG: .*`max\.poll\.interval\.ms`") as wrong:
        kafka_source.KafkaSource("127.0.0.1:1", "g", session_timeout_ms=60_000, extra={"max.poll.interval.ms": 50_000})
    assert len(str(wrong.value).splitlines()) == 1


def test_every_key_that_the_clients_set_is_either_needed_or_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Mapping[str, Any]] = []
    together = kafka_clients._together

    def recorded(*parts: Any) -> dict[str, Any]:
        made.append(together(*parts))
        return dict(made[-1])

    monkeypatch.setattr(kafka_clients, "_together", recorded)
    kafka_source.KafkaSource("127.0.0.1:1", "g").close()
    dead_letters.KafkaDeadLetters("127.0.0.1:1").close()
    producer.KafkaPublisher("127.0.0.1:1")
    assert len(made) == 4
    callbacks = {"error_cb", "stats_cb"}
    assert {key for settings in made for key in settings} - callbacks <= NEEDED.keys() | TUNING
