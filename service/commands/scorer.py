"""`tidemill scorer`: follows events and versions and writes lists."""

import argparse

from service.settings import ScorerSettings


def arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(args: argparse.Namespace) -> int:
    settings = ScorerSettings()
    from service.scoring.main import run_scorer  # here: wrong usage need not wait for torch

    return run_scorer(settings)
