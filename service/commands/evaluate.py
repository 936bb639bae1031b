"""`tidemill evaluate FILE`: prequential evaluation in one process, without Kafka or Redis."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from service.process import Fatal
from service.settings import TrainerSettings


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE")


def run(args: argparse.Namespace) -> int:
    import torch  # here: wrong usage need not wait for it

    from service.training.configuration import model_config
    from service.training.evaluation.evaluate_file import evaluate_file

    path: Path = args.file
    settings = TrainerSettings()
    torch.set_num_threads(settings.threads)
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(path.name, total=1.0)
            found = evaluate_file(
                path,
                model_config(settings),
                replay=settings.replay,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
    except OSError as error:
        raise Fatal(f"cannot read {path}: {error.strerror or error}") from error
    print(
        f"{path.name}: {found.events} events, {found.ranked} ranked before being learned from: "
        f"HR@20 {found.hit_rate:.4f}  MRR@20 {found.mrr:.4f}  NDCG@20 {found.ndcg:.4f}  "
        f"({found.events_per_second:.0f} events/s)"
    )
    return 0
