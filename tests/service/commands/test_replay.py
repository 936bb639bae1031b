"""`tidemill replay`, with a Kafka."""

import gzip
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from service.commands.replay import ReplayOptions, run_replay
from service.local import embedded_kafka
from tests.service.processes import ROOT


def event(user: str = "u1", **more: Any) -> bytes:
    return json.dumps(
        {"user_id": user, "item_id": "i1", "type": "click", "ts": 1000, **more}, ensure_ascii=False
    ).encode()


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    for wrong in ({"rate": 1.0, "speed": 1.0}, {"rate": 0.0}, {"speed": -1.0}, {"rate": float("nan")}):
        with pytest.raises(ValueError, match="--"):
            ReplayOptions(tmp_path, "x", **wrong)  # type: ignore[arg-type]


def records_of(bootstrap: str, topic: str) -> list[tuple[bytes | None, bytes | None, int, int]]:
    """Everything in a topic as (key, value, partition, age of its timestamp in ms)."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "fetch.wait.max.ms": 10})
    now = int(datetime.now(UTC).timestamp() * 1000)
    found: list[tuple[bytes | None, bytes | None, int, int]] = []
    try:
        partitions = [TopicPartition(topic, number, 0) for number in range(4)]
        expected = sum(consumer.get_watermark_offsets(partition, timeout=5)[1] for partition in partitions)
        consumer.assign(partitions)
        while len(found) < expected:
            message = consumer.poll(5)
            assert message is not None
            found.append((message.key(), message.value(), message.partition() or 0, now - message.timestamp()[1]))
    finally:
        consumer.close()
    return found


def test_a_file_through_the_embedded_kafka(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    events, items = tmp_path / "e.jsonl.gz", tmp_path / "i.jsonl"
    users = [f"u{n}" for n in range(40)] + ["ü☃"]
    events.write_bytes(
        gzip.compress(b"\n".join(event(user, n=n) for n in range(25) for user in users) + b"\nrubbish\n")
    )
    items.write_bytes(b'{"item_id":"i1","title":"One"}\n{"item_id":"i2","title":"Zwei"}')
    with embedded_kafka() as bootstrap:
        assert run_replay(ReplayOptions(events, bootstrap, items=items)) == 1  # for the rubbish
        published = records_of(bootstrap, "events")
        sent = [event(user, n=n) for n in range(25) for user in users]
        assert sorted(value or b"" for _, value, _, _ in published) == sorted(sent)
        for user in users:
            own = [(value, partition) for key, value, partition, _ in published if key == user.encode()]
            assert [value for value, _ in own] == [event(user, n=n) for n in range(25)]  # in order
            assert len({partition for _, partition in own}) == 1
        assert all(-5000 < age < 60_000 for *_, age in published)  # Kafka's timestamps are now, not `ts`
        assert {key for key, *_ in records_of(bootstrap, "items")} == {b"i1", b"i2"}
    out, err = capfd.readouterr()
    assert "published 1,025 events and 2 items in " in out
    assert "1 lines left out (1 not_json)" in out
    assert err.splitlines() == [f"tidemill replay: {events}, line 1026: not_json: {err.split('not_json: ')[1].strip()}"]


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_what_is_piped_in(name: str) -> None:
    with embedded_kafka() as bootstrap:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys\nfrom pathlib import Path\nfrom service.commands.replay import *\n"
                f"sys.exit(run_replay(ReplayOptions(Path({name!r}), {bootstrap!r})))",
            ],
            input=event("piped") + b"\n",
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert [key for key, *_ in records_of(bootstrap, "events")] == [b"piped"]


def test_the_partition_is_the_one_a_java_client_chooses(tmp_path: Path) -> None:
    # the value that Kafka's own UtilsTest has for murmur2("21"); the sign bit is masked
    path = tmp_path / "e.jsonl"
    path.write_bytes(event("21"))
    with embedded_kafka() as bootstrap:
        assert run_replay(ReplayOptions(path, bootstrap)) == 0
        ((_, _, partition, _),) = records_of(bootstrap, "events")
    assert partition == (-973932308 & 0x7FFFFFFF) % 4


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_nothing_is_published_of_a_damaged_file(
    damage: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(gzip.compress(b"\n".join(event(f"u{n * 7919 % 1000}", ts=n) for n in range(5000))))
    if damage == "cut":
        del content[-30:]
    else:
        content[-2000] ^= 4
    path = tmp_path / "e.jsonl"
    path.write_bytes(content)
    monkeypatch.setattr("service.commands.replay.KafkaPublisher", None)  # not even asked for
    assert run_replay(ReplayOptions(path, "127.0.0.1:1")) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"tidemill replay: {path} is ")
    assert err.count("\n") == 1


def test_no_kafka_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.producer.KafkaPublisher.check.__defaults__", (0.5,))
    path = tmp_path / "e.jsonl"
    path.write_bytes(event())
    assert run_replay(ReplayOptions(path, "127.0.0.1:1")) == 1
    err = capfd.readouterr().err
    assert len(err.splitlines()) == 1
    assert err.startswith("tidemill replay: no Kafka answers at 127.0.0.1:1: ")


def test_no_file_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_replay(ReplayOptions(tmp_path / "nothing.jsonl", "127.0.0.1:1")) == 1
    assert (
        capfd.readouterr().err == f"tidemill replay: cannot read {tmp_path}/nothing.jsonl: No such file or directory\n"
    )
