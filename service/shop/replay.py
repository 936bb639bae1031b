"""Publishing a file of events, or of items, as if they happened now.

A line is published byte for byte as it stands, if it is what a trainer takes. What is not is left out, named and
counted: it may be what a damaged file looks like.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from consumers.decode import Reject
from consumers.events import Interaction
from consumers.file_reading import FileLine, FileReading
from consumers.producer import PublishError
from service.shop.pace import Pace

_REPORTED_LINES = 20  # further ones are only counted
_LONG_WAIT = 5.0  # seconds; one that is longer is told


class Publish(Protocol):
    """Hands over one record. Raises PublishError for one that Kafka refuses."""

    def __call__(self, topic: str, key: str, value: bytes) -> None: ...


@dataclass(slots=True)
class FileReplay:
    """Publishes the lines of one file to one topic, and counts."""

    reading: FileReading
    publish: Publish
    pace: Pace
    complain: Callable[[str], None]  # one line about one line of the file
    rate: float | None = None  # events per second
    speed: float | None = None  # how many times faster than the `ts` of the file; not together with rate
    on_line: Callable[[FileLine], None] = lambda line: None  # after it was published
    published: int = 0
    bad: int = 0  # lines left out: they do not fit, or Kafka refuses them
    _waits: int = 0  # long ones
    _held: list[str] = field(default_factory=list)  # complaints before the first line that fits

    def run(self) -> None:
        """To the end of the file, or until the pace is stopped. Raises FileError."""
        first_ts: int | None = None
        due = 0.0
        for line in self.reading.lines():
            record, outcome = line
            if isinstance(outcome, Reject):
                self._leave_out(record.offset, f"{outcome.code}: {outcome.message}")
                continue
            self._tell_held()
            if self.rate is not None:
                due = self.published / self.rate
            elif self.speed is not None and isinstance(outcome, Interaction):
                first_ts = outcome.ts if first_ts is None else first_ts
                at = (outcome.ts - first_ts) / 1000 / self.speed
                if at - due > _LONG_WAIT:
                    self._tell_wait(record.offset, at - due)
                due = max(due, at)  # a step back in time is no reason to wait
            if self.pace.stopped or ((self.rate or self.speed) and not self.pace.until(due)):
                return
            assert record.key is not None
            assert record.value is not None
            try:
                self.publish(record.topic, record.key.decode(), record.value)
            except PublishError as error:
                self._leave_out(record.offset, f"Kafka refuses it: {error}")
            else:
                self.published += 1
                self.on_line(line)

    @property
    def _name(self) -> str:
        return self.reading.file.name

    def _tell_wait(self, number: int, seconds: float) -> None:
        self._waits += 1
        if self._waits <= _REPORTED_LINES:
            self.complain(f"{self._name}, line {number}: it is due {seconds:,.0f} s after the line before")

    def _leave_out(self, number: int, problem: str) -> None:
        self.bad += 1
        if self.bad <= _REPORTED_LINES:
            self._held.append(f"{self._name}, line {number}: {problem}; left out")
        if self.bad == _REPORTED_LINES:
            self._held.append(f"{self._name}: further lines like these are only counted")
        if self.reading.accepted:
            self._tell_held()

    def _tell_held(self) -> None:
        """If no line ever fits, one error says so instead."""
        for complaint in self._held:
            self.complain(complaint)
        self._held.clear()
