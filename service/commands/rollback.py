"""`tidemill rollback N`: an older version becomes the live one, and stays it."""

import argparse

from model_store.errors import ModelStoreError
from service.argument_types import count
from service.process import Fatal
from service.settings import CommandSettings
from service.stores import model_store


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version", type=count, metavar="N")


def run(args: argparse.Namespace) -> int:
    try:
        model_store(CommandSettings()).rollback(args.version, "tidemill rollback")
    except ModelStoreError as error:
        raise Fatal(str(error)) from error
    print(f"version {args.version} is live and stays so until `tidemill promote`")
    return 0
