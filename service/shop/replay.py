"""Publishing a file of events, one JSON object a line, as if they happened now.

A line is published byte for byte as it stands, also one that the trainer will reject: whether an event fits is decided
in one place, behind Kafka. Only a line from which no record key can be taken is left out; it is reported and counted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

import orjson

from consumers.event_file import MAX_LINE_BYTES, EventFile
from consumers.producer import PublishError
from service.shop.pace import Pace

_REPORTED_LINES = 20  # further ones are only counted


class Publish(Protocol):
    """Hands over one record. Raises PublishError for one that Kafka refuses."""

    def __call__(self, topic: str, key: str, value: bytes) -> None: ...


class Line(NamedTuple):
    """A line that can be published."""

    key: str
    value: bytes
    ts: float | None  # seconds since the epoch, where the line has a time that can be read
    title: str | None  # of an item
    event: Mapping[str, object]


def parse(line: bytes, key_field: str) -> Line | str:
    """The record in a line, or what is wrong with it. `key_field` is the member that gives the record its key."""
    if len(line) >= MAX_LINE_BYTES:
        return "longer than 16 MiB"
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"not JSON: {error.msg}"
    if not isinstance(event, dict):
        return f"not a JSON object but {type(event).__name__}"
    key = event.get(key_field)
    if not isinstance(key, str) or not key:
        return f"no {key_field}" if key in (None, "") else f"{key_field} is not a string"
    title = event.get("title")
    return Line(key, line, epoch_seconds(event.get("ts")), title if isinstance(title, str) else None, event)


def epoch_seconds(ts: object) -> float | None:
    """The time of an event: integer epoch milliseconds, or ISO-8601 with an offset. None where it is neither."""
    if isinstance(ts, int) and not isinstance(ts, bool):
        return ts / 1000
    if isinstance(ts, str):
        try:
            moment = datetime.fromisoformat(ts)
            return moment.timestamp() if moment.tzinfo is not None else None
        except (ValueError, OverflowError):
            return None
    return None


@dataclass(slots=True)
class FileReplay:
    """Publishes the lines of one file to one topic, and counts."""

    source: EventFile
    topic: str
    key_field: str  # "user_id" or "item_id"
    publish: Publish
    pace: Pace
    complain: Callable[[str], None]  # one line about one bad line
    rate: float | None = None
    speed: float | None = None
    on_line: Callable[[Line], None] = lambda line: None  # after it was published
    name: str = ""  # of the file, in complaints
    published: int = 0
    bad: int = 0

    def run(self) -> None:
        """To the end of the file, or until the pace is stopped. Raises FileError."""
        first: float | None = None
        due = 0.0
        for number, raw in self.source:
            line = parse(raw, self.key_field)
            if isinstance(line, str):
                self._bad(number, line)
                continue
            if self.rate is not None:
                due = self.published / self.rate
            elif self.speed is not None and line.ts is not None:
                first = line.ts if first is None else first
                due = max(due, (line.ts - first) / self.speed)  # a step back in time is no reason to wait
            if self.pace.stopped or ((self.rate or self.speed) and not self.pace.until(due)):
                return
            try:
                self.publish(self.topic, line.key, line.value)
            except PublishError as error:
                self._bad(number, f"Kafka refuses it: {error}")
            else:
                self.published += 1
                self.on_line(line)

    def _bad(self, number: int, problem: str) -> None:
        self.bad += 1
        if self.bad <= _REPORTED_LINES:
            self.complain(f"{self.name or self.topic}, line {number}: {problem}; left out")
        if self.bad == _REPORTED_LINES:
            self.complain(f"{self.name or self.topic}: further lines like these are only counted")
