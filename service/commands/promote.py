"""`tidemill promote [N]`: a version becomes the live one, and new ones follow it."""

import argparse

from model_store.errors import ModelStoreError
from service.argument_types import count
from service.process import Fatal
from service.settings import CommandSettings
from service.stores import model_store


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version", type=count, nargs="?", metavar="N", help="the newest by default")


def run(args: argparse.Namespace) -> int:
    try:
        now_live = model_store(CommandSettings()).promote(args.version, "tidemill promote")
    except ModelStoreError as error:
        raise Fatal(str(error)) from error
    print(f"version {now_live} is live; new versions follow it")
    return 0
