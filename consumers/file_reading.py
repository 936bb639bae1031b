"""A file of events, or of the catalogue, decoded line by line as if it came from Kafka, and what did not fit."""

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
    """A line and what it is. The record's offset is the line's number, from 1; its partition 0, its key as Kafka's."""

    record: Record
    outcome: Interaction | ItemChange | Reject


class FileReading:
    """Reads one file, once, by the rules of a trainer; counts as it goes."""

    def __init__(self, file: EventFile, topic: str, rules: DecodeRules, now_ms: int) -> None:
        """topic: `rules.items_topic` for a catalogue, any other for events. now_ms: the clock, epoch milliseconds."""
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

        Raises FileError at the end where the file is cut off or damaged, with how much of it was read, or where no line
        of it fits, with what the first one lacks.
        """
        half: Reject | None = None
        try:
            for number, value in self.file.lines():
                line = self._decoded(number, value)
                if self.file.unfinished and isinstance(line.outcome, Reject) and line.outcome.code == Reason.NOT_JSON:
                    half = line.outcome  # of the last line; whether the whole one would have fit, nobody knows
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
        """What did not fit, as part of a line: "3 lines left out (2 not_json, 1 missing_field)"; empty if all did."""
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
    """A file to be read by this machine's clock; `-` is standard input. Raises FileError where it cannot be opened."""
    return FileReading(EventFile(path), topic, rules, now_ms())


def _item_id(line: bytes) -> bytes | None:
    """The key that a record with this line is to have."""
    try:
        return str(orjson.loads(line)["item_id"]).encode()
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return None
