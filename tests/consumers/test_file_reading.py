"""Lines are decided upon as records from Kafka are, and counted; a file that is of no use is an error."""

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from consumers.decode import DecodeRules, Reason, Reject
from consumers.event_file import FileError
from consumers.events import Interaction
from consumers.file_reading import FileLine, FileReading, open_reading
from consumers.micro_batch import ItemChange

HOUR_MS = 3_600_000


def event(user: str = "u1", **more: Any) -> bytes:
    return json.dumps({"user_id": user, "item_id": "i1", "type": "click", "ts": 1000, **more}).encode()


Opened = Callable[..., FileReading]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """A file "e" with some content, being read; closed in the end."""
    with ExitStack() as stack:

        def open_with(content: bytes, topic: str = "events", rules: DecodeRules | None = None) -> FileReading:
            (tmp_path / "e").write_bytes(content)
            reading = open_reading(tmp_path / "e", topic, DecodeRules() if rules is None else rules)
            stack.callback(reading.file.close)
            return reading

        yield open_with


def test_a_line_is_a_record_with_the_key_of_its_user(opened: Opened) -> None:
    reading = opened(event("ü☃") + b"\n\n" + event("u2"))
    first, second = reading.lines()
    assert (first.record.offset, first.record.key, first.record.topic) == (1, "ü☃".encode(), "events")
    assert (second.record.offset, second.record.key, second.record.value) == (3, b"u2", event("u2"))
    assert isinstance(first.outcome, Interaction)
    assert (reading.accepted, reading.rejected, reading.left_out) == (2, {}, "")


def test_items(opened: Opened) -> None:
    lines = [b'{"item_id":"i1","title":"A"}', b'{"title":"A"}', b'{"item_id":7,"title":"A"}', b"[]", b"x"]
    reading = opened(b"\n".join([*lines, b""]), "items")
    outcomes = [line.outcome for line in reading.lines()]
    assert outcomes[0] == ItemChange("i1", title="A")
    assert [o.code for o in outcomes[1:] if isinstance(o, Reject)] == [
        "missing_field", "invalid_field", "not_an_object", "not_json",
    ]  # fmt: skip


def test_what_does_not_fit_is_counted_by_reason(opened: Opened) -> None:
    lines = [event(), b"{}", event(type="blink"), b"{}", b"null", b"nonsense", b""]
    reading = opened(b"\n".join(lines))
    assert len(list(reading.lines())) == 6
    assert (reading.accepted, reading.rejected[Reason.MISSING_FIELD]) == (1, 2)
    assert reading.left_out == "5 lines left out (2 missing_field, 1 unknown_type, 1 not_an_object, 1 not_json)"
    assert reading.first_reject is not None
    assert reading.first_reject.record.offset == 2


def test_rules_are_those_of_the_trainer(opened: Opened) -> None:
    rules = DecodeRules(event_types={"blink": 1.0}, future_tolerance_ms=HOUR_MS)
    content = b"\n".join([event(type="blink"), event(), event(type="blink", ts=3 * HOUR_MS), b""])
    reading = FileReading(opened(content).file, "events", rules, now_ms=HOUR_MS)
    assert [getattr(line.outcome, "code", "fits") for line in reading.lines()] == [
        "fits", "unknown_type", "ts_in_future",
    ]  # fmt: skip


def test_a_line_that_is_too_long(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("consumers.event_file", "consumers.file_reading"):
        monkeypatch.setattr(f"{module}.MAX_LINE_BYTES", 1000)
    reading = opened(b"\n".join([event("a"), event("b", query="x" * 5000), event("c"), b""]))
    a, b, c = reading.lines()
    assert (a.record.key, c.record.key) == (b"a", b"c")
    assert isinstance(b.outcome, Reject)
    assert b.outcome.message == "longer than 16 MiB"


@pytest.mark.parametrize(
    ("content", "topic", "said"),
    [
        (b"", "events", "e is empty"),
        (b"\n \n", "events", "e is empty"),
        (b"\n\n[1]\n[2]\n", "events", "no line of {}/e is an event: line 3: Input should be an object"),
        (b'{"item_id":"i1","title":"A"}\n', "events", "is an event: line 1: user_id: Field required; type: "),
        (event() + b"\n", "items", "no line of {}/e is an item: line 1: title: Field required"),
        ("[]\n".encode("utf-16"), "events", "is an event: line 1: it seems to be UTF-16"),
        (b"a,b,c\n1,2,3\n", "events", "is an event: line 1: Invalid JSON: "),
    ],
)
def test_a_file_without_a_line_that_fits(content: bytes, topic: str, said: str, opened: Opened, tmp_path: Path) -> None:
    with pytest.raises(FileError) as raised:
        list(opened(content, topic).lines())
    assert said.format(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


def taken(reading: FileReading) -> tuple[list[FileLine], str]:
    """What came before the file ended badly, and what was said then."""
    lines: list[FileLine] = []
    with pytest.raises(FileError) as raised:
        lines.extend(iter(reading.lines()))
    return lines, str(raised.value)


def test_a_file_that_is_cut_off_says_how_much_of_it_was_read(opened: Opened, tmp_path: Path) -> None:
    content = b"\n".join(event(f"u{n * 7919 % 1000}", ts=n) for n in range(5000))
    packed = gzip.compress(content)
    reading = opened(packed[: len(packed) // 2])
    _, said = taken(reading)
    assert 500 < reading.accepted < 5000
    assert said == f"{tmp_path}/e is cut off in the middle; {reading.accepted:,} events were read"
    assert reading.rejected == {}

    half = content[: len(content) // 2]
    whole_lines = half.count(b"\n")
    reading = opened(half)
    _, said = taken(reading)
    assert said == f"{tmp_path}/e is cut off in the middle of line {whole_lines + 1}; {whole_lines:,} events were read"
    assert reading.rejected == {}  # what was cut is no line


def test_a_last_line_without_an_end_may_not_fit_for_another_reason(opened: Opened) -> None:
    reading = opened(event() + b"\n" + event(type="blink"))
    assert len(list(reading.lines())) == 2
    assert reading.rejected == {"unknown_type": 1}
