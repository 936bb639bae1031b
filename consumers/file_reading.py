"""A file of events, or of the catalogue, decoded line by line as if it came from Kafka."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import orjson

from consumers.decode import DecodeRules, Reason, Reject, decode
from consumers.event_file import MAX_LINE_BYTES, EventFile, FileError
from consumers.events import Interaction
from consumers.micro_batch import ItemChange
from consumers.records import Record
from consumers.times import now_ms


class FileLine(NamedTuple):
    """A line, decoded. The record's offset is the line's number, from 1; its partition is 0; its key is as in Kafka."""

    record: Record
    outcome: Interaction | ItemChange | Reject


class FileReading:
    """Reads one file, once, by the trainer's rules, and counts accepted and rejected lines."""

    def __init__(self, file: EventFile, topic: str, rules: DecodeRules, now_ms: int) -> None:
        """topic: `rules.items_topic` for a catalogue, any other for events. now_ms: the time, in epoch milliseconds."""
        self.file = file
        self.topic = topic
        self.accepted = 0
        self.rejected: Counter[Reason] = Counter()
        self.first_reject: Reject | None = None
        self._rules = rules
        self._now_ms = now_ms
        self._what = "items" if topic == rules.items_topic else "events"

    def lines(self) -> Iterator[FileLine]:
        """Each line that is not blank. To be called once.

        Raises FileError, after the last line that can be read, if the file is cut off or damaged (the message says how
        much was read) or if no line was accepted (the message says what is wrong with the first).
        """
        half: Reject | None = None
        try:
            for number, value in self.file.lines():
                line = self._decoded(number, value)
                if self.file.unfinished and isinstance(line.outcome, Reject) and line.outcome.code == Reason.NOT_JSON:
                    half = line.outcome  # the last line, cut off: neither accepted nor rejected
                    break
                self._count(line.outcome)
                yield line
        except FileError as error:
            raise FileError(f"{error}; {self._read()}") from None
        if self.accepted == 0:
            raise FileError(self._nothing_fits(half))
        if half is not None:
            raise FileError(f"{self.file.name} is cut off in the middle of line {half.record.offset}; {self._read()}")

    @property
    def left_out(self) -> str:
        """The rejects in words: "3 lines left out (2 not_json, 1 missing_field)"; '' if there are none."""
        if not self.rejected:
            return ""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.rejected.most_common())
        return f"{self.rejected.total():,} lines left out ({reasons})"

    def _decoded(self, number: int, value: bytes) -> FileLine:
        record = Record(self.topic, 0, number, -1, None, value)
        if len(value) >= MAX_LINE_BYTES:
            return FileLine(record, Reject(record, Reason.INVALID_FIELD, "longer than 16 MiB"))
        if self._what == "items":
            record = record._replace(key=_item_id(value))
        (outcome,) = decode([record], self._rules, self._now_ms).outcomes
        if isinstance(outcome, Interaction):
            record = record._replace(key=outcome.user_id.encode())
        return FileLine(record, outcome)

    def _count(self, outcome: object) -> None:
        if not isinstance(outcome, Reject):
            self.accepted += 1
            return
        self.rejected[outcome.code] += 1
        if self.first_reject is None:
            self.first_reject = outcome

    def _read(self) -> str:
        return f"{self.accepted:,} {self._what} were read"

    def _nothing_fits(self, half: Reject | None) -> str:
        if (first := self.first_reject or half) is None:
            return f"{self.file.name} is empty"
        what = "an event" if self._what == "events" else "an item"
        return f"no line of {self.file.name} is {what}: line {first.record.offset}: {first.message}"


def open_reading(path: Path, topic: str, rules: DecodeRules) -> FileReading:
    """A reading by this machine's clock; `-` is standard input. Raises FileError if the file cannot be opened."""
    return FileReading(EventFile(path), topic, rules, now_ms())


def _item_id(line: bytes) -> bytes | None:
    """The key of an `items` record with this value."""
    try:
        return str(orjson.loads(line)["item_id"]).encode()
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return None
