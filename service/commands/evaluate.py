"""`tidemill evaluate FILE`: how well a file of events would have been predicted, without Kafka or Redis."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from consumers.event_file import EventFile
from consumers.file_reading import FileReading
from consumers.times import now_ms
from service.argument_types import count
from service.process import Fatal, WrongUsage
from service.settings import TrainerSettings

if TYPE_CHECKING:
    from service.training.evaluation.ader import AderEvaluation
    from service.training.evaluation.evaluate_file import Evaluation
    from service.training.learner import Learner


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="one event a line, gzipped or not; -: standard input")
    parser.add_argument("--items", type=Path, metavar="FILE", help="the catalogue, taken in before the first event")
    parser.add_argument("--events", type=count, metavar="N", help="only the first N events of the file")
    parser.add_argument(
        "--protocol",
        choices=("prequential", "ader"),
        default="prequential",
        help="prequential (default): each event is ranked, then learned from; ader: period by period, see the README",
    )
    parser.add_argument("--off", action="append", default=[], metavar="CHANNEL", help="leave this channel out")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="CHANNEL.OPTION=VALUE",
        help="change the model's configuration: neighbours.slots=32, ranker.share=0.5, history.length=50; setting an"
        " option of a channel that is off switches it on: network.candidates=100",
    )
    parser.add_argument("--ranks", type=Path, metavar="FILE", help="write one JSON line for each ranked event")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw quality over time (needs the extra `plot`)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Raises FileError, WrongUsage, Fatal, OSError."""
    settings = TrainerSettings()
    _check(args)
    with ExitStack() as stack:
        file = stack.enter_context(closing(EventFile(args.file)))
        catalogue = None if args.items is None else stack.enter_context(closing(EventFile(args.items)))
        if args.plot is not None:
            from service.training.evaluation import plot

            plot.check()  # before anything that takes long
        learner = _learner(args, settings)
        weights = learner.config.history.event_weights
        rules, now = replace(settings.decode_rules, event_types=weights), now_ms()
        reading = FileReading(file, settings.events_topic, rules, now)
        items = None if catalogue is None else FileReading(catalogue, settings.items_topic, rules, now)
        ranks, picture = (
            None if path is None else stack.enter_context(_output(path)) for path in (args.ranks, args.plot)
        )
        found = _evaluated(args, settings, reading, items, learner)
        _say(args, reading, items, found)
        if ranks is not None:
            from service.training.evaluation.ranks_file import write_ranks

            write_ranks(ranks, found)
        if picture is not None:
            plot.plot(picture, found, _title(reading))
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises WrongUsage."""
    if args.protocol == "ader" and args.items is not None:
        raise WrongUsage("--protocol ader ranks the items of earlier periods alone: --items has no place in it")
    given = [path for path in (args.file, args.items, args.ranks, args.plot) if path is not None]
    resolved = [path.resolve() for path in given]
    for path in given:
        if resolved.count(path.resolve()) > 1:
            raise WrongUsage(f"{path} is given for two things")


def _learner(args: argparse.Namespace, settings: TrainerSettings) -> "Learner":
    """A new model by the settings, `--off` and `--set`. Raises WrongUsage."""
    import torch  # here: what is wrong with the settings or the file need not wait for it

    from service.model.registry import UnknownConfig
    from service.training.configuration import model_config
    from service.training.evaluation.ablation import WrongChange, changed
    from service.training.learner import Learner

    torch.set_num_threads(settings.threads)
    try:
        return Learner(changed(model_config(settings), args.off, args.changes))
    except (WrongChange, UnknownConfig) as error:
        raise WrongUsage(str(error)) from error


@contextmanager
def _output(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, opened before the evaluation: it should not be in vain. Raises Fatal."""
    try:
        file = open(path, "wb")  # noqa: SIM115
    except OSError as error:
        raise Fatal(f"cannot write {path}: {error.strerror or error}") from None
    with file:
        yield file


def _evaluated(
    args: argparse.Namespace,
    settings: TrainerSettings,
    reading: FileReading,
    items: FileReading | None,
    learner: "Learner",
) -> "Evaluation | AderEvaluation":
    from service.training.effort import Effort
    from service.training.evaluation.ader import evaluate_by_periods
    from service.training.evaluation.evaluate_file import evaluate_file

    effort = Effort(settings.replay)
    with _progress(reading.file.name) as show:
        if args.protocol == "ader":
            return evaluate_by_periods(reading, learner, limit=args.events, effort=effort, progress=show)
        return evaluate_file(reading, learner, items=items, limit=args.events, effort=effort, progress=show)


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, float | None], None]]:
    """A bar on stderr, if that is a terminal, gone in the end."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[lines]:>11,}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None, lines=0)

        def show(lines: int, share: float | None) -> None:
            progress.update(task, total=None if share is None else 1.0, completed=share, lines=lines)

        yield show


def _say(
    args: argparse.Namespace, reading: FileReading, items: FileReading | None, found: "Evaluation | AderEvaluation"
) -> None:
    from service.training.evaluation.as_json import as_json
    from service.training.evaluation.report import summary, table

    notes = [f"{found.duplicates:,} redelivered"] if found.duplicates else []
    notes += [f"{found.skipped:,} batches taught nothing: their loss was not finite"] if found.skipped else []
    notes += [note for each in (reading, items) if each is not None and (note := _left_out(each))]
    if args.json:
        print(json.dumps(as_json(found)))
        for note in notes:
            print(f"tidemill: {_title(reading)}: {note}", file=sys.stderr)
        return
    line = f"{_title(reading)}: {found.events} events, {summary(found)}  ({found.events_per_second:.0f} events/s)"
    print("; ".join([line, *notes]))
    for each in ["", *table(found)]:
        print(each)


def _title(reading: FileReading) -> str:
    return Path(reading.file.name).name


def _left_out(reading: FileReading) -> str:
    """With what the first line that does not fit lacks: mostly that tells it of all."""
    first = reading.first_reject
    return "" if first is None else f"{reading.left_out}, the first: line {first.record.offset}: {first.message}"
