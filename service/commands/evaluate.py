"""`tidemill evaluate FILE`: prequential evaluation in one process, without Kafka or Redis."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from consumers.file_reading import FileReading, open_reading
from service.settings import TrainerSettings

if TYPE_CHECKING:
    from service.training.evaluation.evaluate_file import Evaluation


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="one event a line, gzipped or not; -: standard input")


def run(args: argparse.Namespace) -> int:
    """Raises FileError."""
    settings = TrainerSettings()
    reading = open_reading(args.file, settings.events_topic, settings.decode_rules)
    try:
        found = _evaluate(reading, settings)
    finally:
        reading.file.close()
    notes = "".join(f"; {note}" for note in (_duplicates(found), _left_out(reading)) if note)
    print(
        f"{Path(reading.file.name).name}: {found.events} events, {found.ranked} ranked before being learned from: "
        f"HR@20 {found.hit_rate:.4f}  MRR@20 {found.mrr:.4f}  NDCG@20 {found.ndcg:.4f}  "
        f"({found.events_per_second:.0f} events/s){notes}"
    )
    return 0


def _evaluate(reading: FileReading, settings: TrainerSettings) -> "Evaluation":
    import torch  # here: what is wrong with the settings or the file need not wait for it

    from service.training.configuration import model_config
    from service.training.evaluation.evaluate_file import evaluate_file
    from service.training.learner import Learner

    torch.set_num_threads(settings.threads)
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[lines]:>11,}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(reading.file.name, total=None, lines=0)

        def show(lines: int) -> None:
            share = reading.file.share_read
            progress.update(task, total=None if share is None else 1.0, completed=share, lines=lines)

        learner = Learner(model_config(settings))
        return evaluate_file(reading, learner, replay=settings.replay, progress=show)


def _duplicates(found: "Evaluation") -> str:
    return f"{found.duplicates:,} redelivered" if found.duplicates else ""


def _left_out(reading: FileReading) -> str:
    """With what the first line that does not fit lacks: mostly that tells it of all."""
    first = reading.first_reject
    return "" if first is None else f"{reading.left_out}, the first: line {first.record.offset}: {first.message}"
