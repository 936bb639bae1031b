"""`tidemill up`: everything on this machine, in one command, and nothing of it left when it ends.

    embedded or configured Kafka and Redis  →  trainer, scorers (child processes)  →  traffic, if asked  →  the picture

What is started last is ended first. Every child is on a leash (`service.leash`): when this process is killed without
warning, they end too.
"""

import argparse
import time
from pathlib import Path

from rich.console import Console

from consumers.event_file import FileError
from consumers.producer import KafkaUnreachableError
from model_store.errors import StoreUnavailable
from model_store.keys import Keys
from service.local import CannotStartError
from service.process import WrongUsage
from service.settings import ScorerSettings, TrainerSettings
from service.up.display import Display, Lines, Picture, introduction
from service.up.ending import Ending, ending_by_signals
from service.up.options import UpOptions
from service.up.running import Run, running
from service.up.supervisor import GaveUpError
from service.up.viewer import Viewer

_TEND_EVERY = 0.1  # seconds


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--demo", action="store_true", help="with a simulated shop, or a file, as traffic")
    parser.add_argument("--events", type=Path, metavar="FILE", help="replay this .jsonl[.gz] instead of the shop")
    parser.add_argument("--items", type=Path, metavar="FILE", help="the catalogue to it")
    parser.add_argument("--rate", type=float, metavar="N", help="events per second")
    parser.add_argument("--speed", type=float, metavar="X", help="times faster than the file's own clock")
    parser.add_argument("--seconds", type=float, metavar="N", help="end after so long")
    parser.add_argument("--scorers", type=int, default=1, metavar="N", help="scoring workers (default 1)")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep each process's log here")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the simulated shop")


def run(args: argparse.Namespace) -> int:
    settings = TrainerSettings()  # what is wrong with a child's settings is said here, once
    ScorerSettings()
    given = settings.model_fields_set  # what is not set is embedded
    try:
        options = UpOptions(
            demo=args.demo,
            events=args.events,
            items=args.items,
            rate=args.rate,
            speed=args.speed,
            seconds=args.seconds,
            scorers=args.scorers,
            logs=args.logs,
            fresh=settings.fresh,
            seed=args.seed,
            bootstrap=settings.kafka_bootstrap if "kafka_bootstrap" in given else None,
            redis_url=settings.redis_url if "redis_url" in given else None,
            events_topic=settings.events_topic,
            rules=settings.decode_rules,
            kafka=settings.kafka_config,
            keys=Keys(model=settings.model_name, prefix=settings.key_prefix),
        )
    except ValueError as error:
        raise WrongUsage(str(error)) from error
    return run_up(options)


def run_up(options: UpOptions, *, plain: bool | None = None) -> int:
    """Run until asked to end (Ctrl-C, SIGTERM, `seconds`). 0: ended as asked; 1: something failed, said on stderr.

    plain: lines in place of the picture; None: as the terminal is. There is a picture only with traffic of our own:
    otherwise what stands on the terminal are addresses to copy.
    """
    console = Console(soft_wrap=True, markup=False, highlight=False)
    errors = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    if plain is None:
        plain = not console.is_terminal or not options.demo
    display = Lines(console, errors) if plain else Picture(console, errors)
    with ending_by_signals() as ending:
        try:
            with running(options, display.tell, ending.hurry) as run:
                viewer = Viewer(run)
                with display.open(introduction(run.kafka, run.redis, traffic=options.demo)):
                    _watch(run, viewer, display, ending)
                display.sum_up(viewer.view(time.monotonic(), display.messages), run.versions_published())
        except (CannotStartError, KafkaUnreachableError, StoreUnavailable, FileError, GaveUpError) as error:
            errors.print(f"tidemill up: {error}")
            return 1
    return 1 if run.publishing is not None and run.publishing.ended_early else 0


def _watch(run: Run, viewer: Viewer, display: Display, ending: Ending) -> None:
    """Until asked to end, or until the time is over. Raises GaveUpError."""
    shown = run.began
    while not ending.wait(_TEND_EVERY):
        now = time.monotonic()
        if run.until is not None and now >= run.until:
            return
        run.tend(now)
        viewer.note()
        if now - shown >= display.every:
            shown = now
            display.show(viewer.view(now, display.messages))
