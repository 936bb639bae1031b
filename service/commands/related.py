"""`tidemill related ITEM`: what goes with an item."""

import argparse
import json

from model_store.redis_connection import connect
from service.argument_types import utf8
from service.process import Fatal
from service.settings import CommandSettings


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("item", type=utf8, metavar="ITEM")


def run(args: argparse.Namespace) -> int:
    item_id: str = args.item
    settings = CommandSettings()
    raw = connect(settings.redis_url).call("GET", f"{settings.key_prefix}:related:{item_id}")
    if raw is None:
        raise Fatal(f"nothing is known to go with {item_id!r} yet: is it on the topic of items or in an event?")
    print(json.dumps(json.loads(raw), indent=2, ensure_ascii=False))
    return 0
