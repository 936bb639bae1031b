"""`tidemill up`: everything on this machine, in one command, and nothing of it left when it ends.

    embedded or configured Kafka and Redis  →  trainer, scorers (child processes)  →  traffic, if asked  →  the picture

What is started last is ended first. Every child is on a leash (`service.leash`): when this process is killed without
warning, they end too.
"""

import time

from rich.console import Console

from consumers.producer import KafkaUnreachableError
from model_store.errors import StoreUnavailable
from service.demo.display import Display, Lines, Picture, introduction
from service.demo.ending import Ending, ending_by_signals
from service.demo.replay import FileError
from service.demo.running import Run, running
from service.demo.supervisor import GaveUpError
from service.demo.up_options import UpOptions
from service.demo.viewer import Viewer
from service.local import CannotStartError

_TEND_EVERY = 0.1  # seconds


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
