"""`tidemill recs USER`: a user's list."""

import argparse
import json
import sys

from model_store.redis_connection import connect
from service.argument_types import utf8
from service.process import Fatal
from service.settings import CommandSettings


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", type=utf8, metavar="USER")


def run(args: argparse.Namespace) -> int:
    """The user's list, or the trending one when there is none; which of the two goes to stderr."""
    user_id: str = args.user
    settings = CommandSettings()
    redis = connect(settings.redis_url)
    raw = redis.call("GET", f"{settings.key_prefix}:recs:{user_id}")
    if raw is None:
        raw = redis.call("GET", f"{settings.key_prefix}:recs_default")
        if raw is None:
            raise Fatal(f"there is no list for {user_id!r}, and no trending list yet: is a scorer running?")
        print(f"no list for {user_id!r}; this is the trending list", file=sys.stderr)
    print(json.dumps(json.loads(raw), indent=2, ensure_ascii=False))
    return 0
