"""Publishing a file: what fits, as it stands, with its key, at its pace; what does not is named and left out."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from consumers.decode import DecodeRules
from consumers.event_file import FileError
from consumers.file_reading import open_reading
from consumers.producer import PublishError
from service.shop.pace import Pace
from service.shop.replay import FileReplay
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


def replay(
    path: Path, time: FakeTime | None = None, recorder: Recorder | None = None, topic: str = "events", **more: Any
) -> tuple[Recorder, FileReplay]:
    recorder, time = recorder or Recorder(), time or FakeTime()
    reading = open_reading(path, topic, DecodeRules())
    pace = Pace(clock=time.clock, sleep=time.sleep)
    engine = FileReplay(reading, recorder.publish, pace, recorder.complaints.append, **more)
    try:
        engine.run()
    finally:
        reading.file.close()
    return recorder, engine


def test_lines_are_published_byte_for_byte_with_their_key(tmp_path: Path) -> None:
    lines = [
        event("u1"),
        b'{"user_id": "\xc3\xa9\xe2\x98\x83",  "type":"view","item_id" :"i", "ts":"2026-01-05T10:00:00Z"}',
        event("u2", value=10**15, unknown={"a": None}),
    ]
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    recorder, engine = replay(path)
    assert recorder.records == [("events", key, line) for key, line in zip(["u1", "é☃", "u2"], lines, strict=True)]
    assert (engine.published, engine.bad) == (3, 0)


def test_items_have_their_own_key(tmp_path: Path) -> None:
    path = tmp_path / "i.jsonl"
    path.write_bytes(b'{"item_id":"i1","title":"A"}\n{"title":"B"}\n')
    recorder, _ = replay(path, topic="items")
    assert recorder.records == [("items", "i1", b'{"item_id":"i1","title":"A"}')]
    assert recorder.complaints == [f"{path}, line 2: missing_field: item_id: Field required; left out"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{broken", "not_json: "),
        (b"\xff\xfe", "not_json: "),
        (b"[1]", "not_an_object: "),
        (b"null", "not_an_object: "),
        (b'{"item_id":"i1","type":"click","ts":1}', "missing_field: user_id: "),
        (event(""), "invalid_field: user_id: "),
        (event("u", ts="yesterday"), "invalid_field: ts: "),
        (event("u", ts=10**15), "ts_in_future: "),
        (event("u", type="blink"), "unknown_type: "),
        (event("u", query="too large"), "Kafka refuses it: Broker: Message size too large"),
    ],
)
def test_a_line_that_does_not_fit_is_named_counted_and_left_out(tmp_path: Path, line: bytes, problem: str) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"\n".join([event("a"), b"", line, event("b")]))
    recorder, engine = replay(path)
    assert [key for _, key, _ in recorder.records] == ["a", "b"]
    assert (engine.published, engine.bad) == (2, 1)
    (complaint,) = recorder.complaints
    assert complaint.startswith(f"{path}, line 3: {problem}")
    assert complaint.endswith("; left out")
    assert "\n" not in complaint


def test_many_bad_lines_do_not_flood(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"x\n" * 1000 + event() + b"\n")
    recorder, engine = replay(path)
    assert engine.bad == 1000
    assert len(recorder.complaints) == 21
    assert "only counted" in recorder.complaints[-1]


def test_a_file_without_an_event_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b'{"item_id":"i1","title":"A"}\n' * 100)
    recorder = Recorder()
    with pytest.raises(FileError, match=f"^no line of {path} is an event: line 1: user_id: Field required"):
        replay(path, recorder=recorder)
    assert (recorder.records, recorder.complaints) == ([], [])


@pytest.mark.parametrize("packed", [False, True])
def test_of_a_file_that_is_cut_off_no_half_line_is_published(packed: bool, tmp_path: Path) -> None:
    whole = [event(f"u{n * 7919 % 1000}", ts=n) for n in range(3000)]
    content = b"\n".join(whole)
    content = gzip.compress(content) if packed else content
    path = tmp_path / "e"
    path.write_bytes(content[: len(content) // 2])
    recorder = Recorder()
    with pytest.raises(FileError, match=r"cut off in the middle.*; [0-9,]+ events were read"):
        replay(path, recorder=recorder)
    assert 300 < len(recorder.records) < 3000
    assert [value for _, _, value in recorder.records] == whole[: len(recorder.records)]


def test_a_rate_holds(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"\n".join([event()] * 501))
    time = FakeTime()
    replay(path, time, rate=50.0)
    assert time.now == pytest.approx(110.0, abs=0.01)


def test_a_speed_up_follows_the_file_and_never_goes_back(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    stamps: list[object] = [1_000_000, 1_060_000, "1970-01-01T00:18:40Z", 1_010_000, "1970-01-01T02:20:00+02:00"]
    path.write_bytes(b"\n".join(event(ts=ts) for ts in stamps))
    time = FakeTime()
    at: list[float] = []
    replay(path, time, speed=10.0, on_line=lambda line: at.append(round(time.now - 100, 6)))
    assert at == [0.0, 6.0, 12.0, 12.0, 20.0]


@pytest.mark.parametrize("ts", [10**15, "9999-01-01T00:00:00Z", "nonsense", None])
def test_a_time_that_a_trainer_rejects_sets_no_pace(ts: object, tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"\n".join(event(ts=each) for each in (1_000_000, ts, 1_020_000)))
    time = FakeTime()
    _, engine = replay(path, time, speed=10.0)
    assert (engine.published, round(time.now - 100, 6)) == (2, 2.0)


def test_a_long_wait_is_told(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"\n".join(event(ts=ts) for ts in (0, 10_000, 3_610_000, 3_611_000, *range(10**7, 10**9, 10**7))))
    recorder, _ = replay(path, speed=2.0)
    assert recorder.complaints[:2] == [
        f"{path}, line 3: it is due 1,800 s after the line before",
        f"{path}, line 5: it is due 3,194 s after the line before",
    ]
    assert len(recorder.complaints) == 20


def test_as_fast_as_possible_waits_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"\n".join([event()] * 100))
    time = FakeTime()
    replay(path, time)
    assert time.slept == []
