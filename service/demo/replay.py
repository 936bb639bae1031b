"""`tidemill replay`: publishes a file of events, one JSON object a line, as if they happened now.

A line is published byte for byte as it stands, also one that the trainer will reject: whether an event fits is decided
in one place, behind Kafka. Only a line from which no record key can be taken is left out; it is reported and counted.
"""

import gzip
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from io import BufferedReader
from pathlib import Path
from typing import IO, NamedTuple, Protocol

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from consumers.producer import KafkaPublisher, KafkaUnreachableError, PublishError
from service.demo.pace import Pace

MAX_LINE_BYTES = 16 * 1024 * 1024
_REPORTED_LINES = 20  # further ones are only counted
_PLAIN_EVERY = 5.0  # seconds between the lines of a replay without a terminal


class Publish(Protocol):
    """Hands over one record. Raises PublishError for one that Kafka refuses."""

    def __call__(self, topic: str, key: str, value: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What `tidemill replay` was asked. Without rate and speed: as fast as Kafka takes them."""

    file: Path
    bootstrap: str
    items: Path | None = None  # published before the events
    rate: float | None = None  # events per second
    speed: float | None = None  # how many times faster than the `ts` of the file; not together with rate
    events_topic: str = "events"
    items_topic: str = "items"
    kafka: Mapping[str, str | int | float | bool] = field(default_factory=dict)  # further librdkafka settings

    def __post_init__(self) -> None:
        if self.rate is not None and self.speed is not None:
            raise ValueError("--rate and --speed exclude each other")
        for name, value in (("--rate", self.rate), ("--speed", self.speed)):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} is a number above 0")


class Line(NamedTuple):
    """A line that can be published."""

    key: str
    value: bytes
    ts: float | None  # seconds since the epoch, where the line has a time that can be read
    title: str | None  # of an item
    event: Mapping[str, object]


class FileError(RuntimeError):
    """The file cannot be read, or not to its end; the message is one line."""


class EventFile:
    """A `.jsonl` or `.jsonl.gz` being read, from its first line to its last. Raises FileError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._raw = open(path, "rb")  # noqa: SIM115 - closed by close()
            self.size = path.stat().st_size
            packed = self._raw.peek(2)[:2] == b"\x1f\x8b"
        except OSError as error:
            raise FileError(f"cannot read {path}: {error.strerror}") from None
        self._lines: IO[bytes] | gzip.GzipFile | BufferedReader = (
            gzip.GzipFile(fileobj=self._raw) if packed else self._raw
        )
        self.done = False

    @property
    def share_read(self) -> float:
        """How much of the file has been read, 0 to 1."""
        if self.done or self.size == 0:
            return 1.0
        return min(1.0, self._raw.tell() / self.size)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Number (from 1) and bytes of each line that is not blank. A line over 16 MiB comes cut off there."""
        number = 0
        try:
            while line := self._lines.readline(MAX_LINE_BYTES):
                number += 1
                rest = line
                while not rest.endswith(b"\n") and len(rest) == MAX_LINE_BYTES:
                    rest = self._lines.readline(MAX_LINE_BYTES)
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")  # some editors put a byte order mark there
                if line := line.strip():
                    yield number, line
        except (OSError, EOFError, zlib.error) as error:
            raise FileError(f"cannot read {self._path} after line {number}: {error}") from None
        self.done = True

    def close(self) -> None:
        self._lines.close()
        self._raw.close()


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


def run_replay(options: ReplayOptions) -> int:
    """Replay as asked. 0: all of it is in Kafka; 1: something is not, each with a line on stderr."""
    errors = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    console = Console(soft_wrap=True, markup=False, highlight=False)

    def complain(line: str) -> None:
        errors.print(f"tidemill replay: {line}")

    files: list[EventFile] = []
    replays: list[FileReplay] = []
    publisher = None
    interrupted = False
    began = time.monotonic()
    try:
        sources = [] if options.items is None else [(options.items, options.items_topic, "item_id")]
        sources.append((options.file, options.events_topic, "user_id"))
        files.extend(EventFile(path) for path, _, _ in sources)
        publisher = KafkaPublisher(options.bootstrap, options.kafka)
        publisher.check()
        publisher.prepare_topics(options.events_topic, options.items_topic)
        for file, (path, topic, key_field) in zip(files, sources, strict=True):
            replay = FileReplay(file, topic, key_field, publisher.publish, Pace(), complain, name=str(path))
            if topic == options.events_topic:
                replay.rate, replay.speed = options.rate, options.speed
            replays.append(replay)
            with _Progress(console, path.name, replay):
                replay.run()
            if topic == options.items_topic:
                publisher.flush(60)  # the catalogue is there before the first event
    except KeyboardInterrupt:
        interrupted = True
    except (FileError, KafkaUnreachableError) as error:
        complain(str(error))
        interrupted = True
    finally:
        for file in files:
            file.close()
        if publisher is not None:
            publisher.close(5.0 if interrupted else 60.0)
    if publisher is None or not replays:
        return 1
    lost = publisher.failures.total()
    for reason, count in publisher.failures.items():
        complain(f"{count} records did not reach Kafka: {reason}")
    bad = sum(replay.bad for replay in replays)
    counts = " and ".join(f"{replay.published:,} {replay.topic}" for replay in reversed(replays))
    seconds = time.monotonic() - began
    console.print(
        f"{'stopped after' if interrupted else 'published'} {counts} in {seconds:.1f} s"
        + (f"; {bad} bad lines left out" if bad else "")
        + (f"; {lost} records not delivered" if lost else "")
    )
    return 1 if bad or lost or interrupted else 0


class _Progress:
    """A progress bar on a terminal, a line every few seconds elsewhere, fed by the replay's own counts."""

    def __init__(self, console: Console, name: str, replay: FileReplay) -> None:
        self._console, self._name, self._replay = console, name, replay
        self._began = self._shown = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %  {task.fields[count]:>11,}  {task.fields[rate]:>8,.0f}/s"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task(name, total=1.0, count=0, rate=0.0)
        replay.on_line = self._on_line

    def __enter__(self) -> None:
        if self._bar is not None:
            self._bar.start()

    def __exit__(self, *_: object) -> None:
        self._show()
        if self._bar is not None:
            self._bar.stop()

    def _on_line(self, _: Line) -> None:
        if self._replay.published % 64 == 0 or self._replay.rate is not None or self._replay.speed is not None:
            now = time.monotonic()
            if now - self._shown > (0.1 if self._bar is not None else _PLAIN_EVERY):
                self._shown = now
                self._show()

    def _show(self) -> None:
        replay = self._replay
        rate = replay.published / max(1e-9, time.monotonic() - self._began)
        share = replay.source.share_read
        if self._bar is not None:
            self._bar.update(self._task, completed=share, count=replay.published, rate=rate)
        else:
            self._console.print(f"{self._name}: {replay.published:,} published, {share:.0%} of the file, {rate:,.0f}/s")
            sys.stdout.flush()
