"""`tidemill replay FILE`: publishes a file of events, with the catalogue before it."""

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from consumers.decode import DecodeRules
from consumers.event_file import FileError
from consumers.file_reading import FileLine, FileReading, open_reading
from consumers.producer import KafkaPublisher, KafkaUnreachableError
from service.process import WrongUsage
from service.settings import CommandSettings
from service.shop.pace import Pace
from service.shop.replay import FileReplay

_PLAIN_EVERY = 5.0  # seconds between the lines of a replay without a terminal


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="one event a line, gzipped or not; -: standard input")
    parser.add_argument("--items", type=Path, metavar="FILE", help="the catalogue, published first")
    parser.add_argument("--rate", type=float, metavar="N", help="events per second")
    parser.add_argument("--speed", type=float, metavar="X", help="times faster than the file's own clock")


def run(args: argparse.Namespace) -> int:
    settings = CommandSettings()
    try:
        options = ReplayOptions(
            args.file,
            settings.kafka_bootstrap,
            items=args.items,
            rate=args.rate,
            speed=args.speed,
            events_topic=settings.events_topic,
            rules=settings.decode_rules,
            kafka=settings.kafka_config,
        )
    except ValueError as error:
        raise WrongUsage(str(error)) from error
    return run_replay(options)


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What `tidemill replay` was asked. Without rate and speed: as fast as Kafka takes them."""

    file: Path
    bootstrap: str
    items: Path | None = None  # published before the events
    rate: float | None = None  # events per second
    speed: float | None = None  # how many times faster than the `ts` of the file; not together with rate
    events_topic: str = "events"
    rules: DecodeRules = field(default_factory=DecodeRules)  # what fits; with the topic of the items
    kafka: Mapping[str, str | int | float | bool] = field(default_factory=dict)  # further librdkafka settings

    def __post_init__(self) -> None:
        if self.rate is not None and self.speed is not None:
            raise ValueError("--rate and --speed exclude each other")
        for name, value in (("--rate", self.rate), ("--speed", self.speed)):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} is a number above 0")


def run_replay(options: ReplayOptions) -> int:
    """Replay as asked. 0: all of it is in Kafka; 1: something is not, each with a line on stderr."""
    errors = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    console = Console(soft_wrap=True, markup=False, highlight=False)

    def complain(line: str) -> None:
        errors.print(f"tidemill replay: {line}")

    readings: list[FileReading] = []
    replays: list[FileReplay] = []
    publisher = None
    interrupted = False
    began = time.monotonic()
    try:
        sources = [] if options.items is None else [(options.items, options.rules.items_topic)]
        sources.append((options.file, options.events_topic))
        for path, topic in sources:
            readings.append(open_reading(path, topic, options.rules))
        for reading in readings:
            reading.file.check()  # before anything is published
        publisher = KafkaPublisher(options.bootstrap, options.kafka)
        publisher.check()
        publisher.prepare_topics(options.events_topic, options.rules.items_topic)
        for reading in readings:
            replay = FileReplay(reading, publisher.publish, Pace(), complain)
            if reading.topic == options.events_topic:
                replay.rate, replay.speed = options.rate, options.speed
            replays.append(replay)
            with _Progress(console, replay):
                replay.run()
            if reading.topic != options.events_topic:
                publisher.flush(60)  # the catalogue is there before the first event
    except KeyboardInterrupt:
        interrupted = True
    except (FileError, KafkaUnreachableError) as error:
        complain(str(error))
        interrupted = True
    finally:
        for reading in readings:
            reading.file.close()
        if publisher is not None:
            publisher.close(5.0 if interrupted else 60.0)
    if publisher is None or not replays:
        return 1
    lost = publisher.failures.total()
    for reason, count in publisher.failures.items():
        complain(f"{count} records did not reach Kafka: {reason}")
    bad = sum(replay.bad for replay in replays)
    counts = " and ".join(f"{replay.published:,} {replay.reading.topic}" for replay in reversed(replays))
    left_out = "".join(f"; {replay.reading.left_out}" for replay in replays if replay.reading.left_out)
    seconds = time.monotonic() - began
    console.print(
        f"{'stopped after' if interrupted else 'published'} {counts} in {seconds:.1f} s"
        + left_out
        + (f"; {lost} records not delivered" if lost else "")
    )
    return 1 if bad or lost or interrupted else 0


class _Progress:
    """A progress bar on a terminal, a line every few seconds elsewhere, fed by the replay's own counts."""

    def __init__(self, console: Console, replay: FileReplay) -> None:
        self._console, self._replay = console, replay
        self._name = Path(replay.reading.file.name).name
        self._began = self._shown = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %  {task.fields[count]:>11,}  {task.fields[rate]:>8,.0f}/s"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task(self._name, total=1.0, count=0, rate=0.0)
        replay.on_line = self._on_line

    def __enter__(self) -> None:
        if self._bar is not None:
            self._bar.start()

    def __exit__(self, *_: object) -> None:
        self._show()
        if self._bar is not None:
            self._bar.stop()

    def _on_line(self, _: FileLine) -> None:
        if self._replay.published % 64 == 0 or self._replay.rate is not None or self._replay.speed is not None:
            now = time.monotonic()
            if now - self._shown > (0.1 if self._bar is not None else _PLAIN_EVERY):
                self._shown = now
                self._show()

    def _show(self) -> None:
        replay = self._replay
        rate = replay.published / max(1e-9, time.monotonic() - self._began)
        share = replay.reading.file.share_read
        if self._bar is not None:
            total = None if share is None else 1.0
            self._bar.update(self._task, total=total, completed=share, count=replay.published, rate=rate)
        else:
            of_file = "" if share is None else f" {share:.0%} of the file,"
            self._console.print(f"{self._name}: {replay.published:,} published,{of_file} {rate:,.0f}/s")
            sys.stdout.flush()
