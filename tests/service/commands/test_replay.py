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

from consumers.event_file import EventFile, FileError
from consumers.producer import PublishError
from service.commands.replay import ReplayOptions, run_replay
from service.local import embedded_kafka
from service.shop.pace import Pace
from service.shop.replay import FileReplay, Line, epoch_seconds, parse
from tests.service.processes import ROOT
from tests.service.shop.test_pace import FakeTime


def event(user: str = "u1", **more: Any) -> bytes:
    return json.dumps(
        {"user_id": user, "item_id": "i1", "type": "click", "ts": 1000, **more}, ensure_ascii=False
    ).encode()


class Recorder:
    def __init__(self) -> None:
        self.records: list[tuple[str, str, bytes]] = []
        self.complaints: list[str] = []

    def publish(self, topic: str, key: str, value: bytes) -> None:
        if b"too large" in value:
            raise PublishError("Broker: Message size too large")
        self.records.append((topic, key, value))


def replay(path: Path, time: FakeTime | None = None, **more: Any) -> tuple[Recorder, FileReplay]:
    recorder, time = Recorder(), time or FakeTime()
    source = EventFile(path)
    pace = Pace(clock=time.clock, sleep=time.sleep)
    engine = FileReplay(source, "events", "user_id", recorder.publish, pace, recorder.complaints.append, **more)
    try:
        engine.run()
    finally:
        source.close()
    return recorder, engine


def test_lines_are_published_byte_for_byte_with_their_key(tmp_path: Path) -> None:
    lines = [
        event("u1"),
        b'{"user_id": "\xc3\xa9\xe2\x98\x83",  "type":"nonsense", "ts":123456789012345678901234567890}',
        event("u2", value=10**30),
    ]
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"\n".join(lines))
    recorder, engine = replay(path)
    assert recorder.records == [("events", key, line) for key, line in zip(["u1", "é☃", "u2"], lines, strict=True)]
    assert (engine.published, engine.bad) == (3, 0)


@pytest.mark.parametrize("name", ["e.jsonl", "e.jsonl.gz", "packed_without_saying_so"])
def test_packed_or_not(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = event("ü☃") + b"\r\n\n   \n" + event("u2") + b"\n"
    path.write_bytes(content if name == "e.jsonl" else gzip.compress(content))
    recorder, engine = replay(path)
    assert [(key, value) for _, key, value in recorder.records] == [("ü☃", event("ü☃")), ("u2", event("u2"))]
    assert engine.source.share_read == 1.0


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.touch()
    recorder, engine = replay(path)
    assert (recorder.records, recorder.complaints, engine.published, engine.bad) == ([], [], 0, 0)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{broken", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "not a JSON object but list"),
        (b"null", "not a JSON object but NoneType"),
        (b'{"item_id":"i1"}', "no user_id"),
        (b'{"user_id":null}', "no user_id"),
        (b'{"user_id":""}', "no user_id"),
        (b'{"user_id":42}', "user_id is not a string"),
        (b'{"user_id":"\\ud800"}', "not JSON"),
        (b'{"user_id":"u","value":NaN}', "not JSON"),
        (b'{"user_id":"u1","x":"too large"}', "Kafka refuses it: Broker: Message size too large"),
    ],
)
def test_a_bad_line_is_named_counted_and_left_out(tmp_path: Path, line: bytes, problem: str) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"\n".join([event("a"), b"", line, event("b")]))
    recorder, engine = replay(path, name="e.jsonl")
    assert [key for _, key, _ in recorder.records] == ["a", "b"]
    assert (engine.published, engine.bad) == (2, 1)
    (complaint,) = recorder.complaints
    assert complaint.startswith(f"e.jsonl, line 3: {problem}")
    assert complaint.endswith("; left out")
    assert "\n" not in complaint


def test_many_bad_lines_do_not_flood(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"x\n" * 1000)
    recorder, engine = replay(path)
    assert engine.bad == 1000
    assert len(recorder.complaints) == 21
    assert "only counted" in recorder.complaints[-1]


def test_an_endless_line_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("consumers.event_file", "service.shop.replay"):
        monkeypatch.setattr(f"{module}.MAX_LINE_BYTES", 1000)
    path = tmp_path / "e.jsonl"
    path.write_bytes(event("a") + b"\n" + event("b", query="x" * 5000) + b"\n" + event("c") + b"\n")
    recorder, engine = replay(path)
    assert [key for _, key, _ in recorder.records] == ["a", "c"]
    assert "line 2: longer than" in recorder.complaints[0]
    assert engine.bad == 1


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + event("a"))
    assert replay(path)[0].records == [("events", "a", event("a"))]


def test_a_file_that_is_cut_off_says_so(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(event(f"u{n}") for n in range(2000)))[:-20])
    with pytest.raises(FileError, match=r"cannot read .* after line \d+: "):
        replay(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        EventFile(tmp_path / "nothing")
    with pytest.raises(FileError, match="Is a directory"):
        EventFile(tmp_path)


def test_a_rate_holds(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"\n".join([event()] * 501))
    time = FakeTime()
    replay(path, time, rate=50.0)
    assert time.now == pytest.approx(110.0, abs=0.01)


def test_a_speed_up_follows_the_file_and_never_goes_back(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    stamps: list[object] = [
        1_000_000, 1_060_000, "1970-01-01T00:18:40Z", "nonsense", None, 1_010_000, "1970-01-01T02:20:00+02:00",
    ]  # fmt: skip
    path.write_bytes(b"\n".join(event(ts=ts) for ts in stamps))
    time = FakeTime()
    at: list[float] = []
    replay(path, time, speed=10.0, on_line=lambda line: at.append(round(time.now - 100, 6)))
    assert at == [0.0, 6.0, 12.0, 12.0, 12.0, 12.0, 20.0]


def test_as_fast_as_possible_waits_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"\n".join([event()] * 100))
    time = FakeTime()
    replay(path, time)
    assert time.slept == []


def test_times() -> None:
    assert epoch_seconds(1_500) == 1.5
    assert epoch_seconds("1970-01-01T00:00:01.500Z") == 1.5
    assert epoch_seconds(datetime(2026, 1, 5, tzinfo=UTC).isoformat()) == datetime(2026, 1, 5, tzinfo=UTC).timestamp()
    nonsense: object
    for nonsense in (True, None, 1.5, "2026-01-05T10:00:00", "yesterday", [], "9999-99-99"):
        assert epoch_seconds(nonsense) is None


def test_an_item_gives_its_title() -> None:
    line = parse(b'{"item_id":"i1","title":"A"}', "item_id")
    assert isinstance(line, Line)
    assert (line.key, line.title) == ("i1", "A")


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
    events.write_bytes(gzip.compress(b"\n".join(event(user, n=n) for n in range(25) for user in users) + b"\nrubbish"))
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
    assert "1 bad lines left out" in out
    assert err.splitlines() == [f"tidemill replay: {events}, line 1026: not JSON: {err.split('not JSON: ')[1].strip()}"]


def test_what_is_piped_in(tmp_path: Path) -> None:
    with embedded_kafka() as bootstrap:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys\nfrom pathlib import Path\nfrom service.commands.replay import *\n"
                f"sys.exit(run_replay(ReplayOptions(Path('/dev/stdin'), {bootstrap!r})))",
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
