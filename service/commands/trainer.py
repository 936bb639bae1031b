"""`tidemill trainer`: learns from events and publishes versions."""

import argparse

from service.settings import TrainerSettings


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fresh", action="store_true", help="begin anew instead of continuing the newest version")


def run(args: argparse.Namespace) -> int:
    settings = TrainerSettings()
    from service.training.main import run_trainer  # here: wrong usage need not wait for torch

    return run_trainer(settings.model_copy(update={"fresh": True}) if args.fresh else settings)
