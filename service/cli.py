"""The command line. Exit codes: 0 done, 1 failed at run time, 2 wrong usage; errors are one line on stderr."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import SettingsError

from model_store.errors import ModelStoreError

# what a command needs is imported when it runs: `tidemill --help` need not wait for torch


T = TypeVar("T")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tidemill",
        description="A streaming recommender. Settings are environment variables, TIDEMILL_*; see the README.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="run everything on this machine")
    up.add_argument("--demo", action="store_true", help="with a simulated shop, or a file, as traffic")
    up.add_argument("--events", type=Path, metavar="FILE", help="replay this .jsonl[.gz] instead of the shop")
    up.add_argument("--items", type=Path, metavar="FILE", help="the catalogue to it")
    up.add_argument("--rate", type=float, metavar="N", help="events per second")
    up.add_argument("--speed", type=float, metavar="X", help="times faster than the file's own clock")
    up.add_argument("--seconds", type=float, metavar="N", help="end after so long")
    up.add_argument("--scorers", type=int, default=1, metavar="N", help="scoring workers (default 1)")
    up.add_argument("--logs", type=Path, metavar="DIR", help="keep each process's log here")
    up.add_argument("--seed", type=int, default=0, metavar="N", help="of the simulated shop")

    trainer = commands.add_parser("trainer", help="learn from events and publish versions")
    trainer.add_argument("--fresh", action="store_true", help="begin anew instead of continuing the newest version")
    commands.add_parser("scorer", help="follow events and versions and write lists; any number of them")

    replay = commands.add_parser("replay", help="publish a file of events")
    replay.add_argument("file", type=Path, metavar="FILE", help=".jsonl or .jsonl.gz, one event a line")
    replay.add_argument("--items", type=Path, metavar="FILE", help="the catalogue, published first")
    replay.add_argument("--rate", type=float, metavar="N", help="events per second")
    replay.add_argument("--speed", type=float, metavar="X", help="times faster than the file's own clock")

    recs = commands.add_parser("recs", help="show a user's list")
    recs.add_argument("user", metavar="USER")

    versions = commands.add_parser("versions", help="show which versions there are and which one is live")
    versions.add_argument("--limit", type=int, default=20, metavar="N", help="the newest N (default 20)")
    versions.add_argument("--at", metavar="TIME", help="which version was live then (ISO 8601)")

    rollback = commands.add_parser("rollback", help="make an older version live and keep it so until `promote`")
    rollback.add_argument("version", type=int, metavar="N")

    promote = commands.add_parser("promote", help="make version N, or the newest, live, and follow new ones again")
    promote.add_argument("version", type=int, nargs="?", metavar="N")

    verify = commands.add_parser("verify", help="make version N again from the events, and compare every bit")
    verify.add_argument("version", type=int, nargs="?", metavar="N", help="the live one by default")
    verify.add_argument(
        "--from", dest="start", type=int, metavar="M", help="begin with version M, or 0: nothing (default: the nearest)"
    )

    evaluate = commands.add_parser("evaluate", help="prequential evaluation of a file, in one process")
    evaluate.add_argument("file", type=Path, metavar="FILE")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(arguments)
    try:
        return _run(args, parser)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # whoever read the output has left: nothing more to say, also not at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValidationError, SettingsError) as error:
        return _complain(_settings_line(error), 2)
    except (OSError, RuntimeError, ModelStoreError) as error:
        return _complain(str(error), 1)


def _run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    match args.command:
        case "trainer":
            from service.settings import TrainerSettings
            from service.training.main import run_trainer

            settings = TrainerSettings()
            return run_trainer(settings.model_copy(update={"fresh": True}) if args.fresh else settings)
        case "scorer":
            from service.scoring.main import run_scorer
            from service.settings import ScorerSettings

            return run_scorer(ScorerSettings())
        case "up":
            from service.demo.up import run_up
            from service.demo.up_options import UpOptions

            return run_up(_options(parser, lambda: UpOptions(**_up_arguments(args))))
        case "replay":
            from service.demo.replay import ReplayOptions, run_replay

            return run_replay(_options(parser, lambda: ReplayOptions(**_replay_arguments(args))))
        case "evaluate":
            from service.evaluate_command import evaluate

            return evaluate(args.file)
        case "verify":
            from service.verify_command import run_verify

            return run_verify(args.version, args.start)
        case "recs":
            from service.model_commands import show_recs

            return show_recs(args.user)
        case "versions":
            from service.model_commands import show_versions

            return show_versions(args.limit, args.at)
        case "rollback":
            from service.model_commands import rollback

            return rollback(args.version)
        case "promote":
            from service.model_commands import promote

            return promote(args.version)
        case other:
            raise AssertionError(f"no such command: {other}")


def _options(parser: argparse.ArgumentParser, make: Callable[[], T]) -> T:
    """What was asked; wrong combinations end with the usage and exit code 2."""
    try:
        return make()
    except (ValidationError, SettingsError):
        raise  # ValueErrors too, but of the settings
    except ValueError as error:
        parser.error(str(error))


def _up_arguments(args: argparse.Namespace) -> dict[str, Any]:
    from model_store.keys import Keys
    from service.settings import CommonSettings

    settings = CommonSettings()
    given = settings.model_fields_set  # what is not set is embedded
    names = ("demo", "events", "items", "rate", "speed", "seconds", "scorers", "logs", "seed")
    return {name: getattr(args, name) for name in names} | {
        "bootstrap": settings.kafka_bootstrap if "kafka_bootstrap" in given else None,
        "redis_url": settings.redis_url if "redis_url" in given else None,
        "events_topic": settings.events_topic,
        "items_topic": settings.items_topic,
        "kafka": settings.kafka_config,
        "keys": Keys(model=settings.model_name, prefix=settings.key_prefix),
    }


def _replay_arguments(args: argparse.Namespace) -> dict[str, Any]:
    from service.settings import CommonSettings

    settings = CommonSettings()
    return {name: getattr(args, name) for name in ("file", "items", "rate", "speed")} | {
        "bootstrap": settings.kafka_bootstrap,
        "events_topic": settings.events_topic,
        "items_topic": settings.items_topic,
        "kafka": settings.kafka_config,
    }


def _settings_line(error: ValidationError | SettingsError) -> str:
    if isinstance(error, ValidationError):
        problems = (f"TIDEMILL_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        return "wrong settings: " + "; ".join(problems)
    field = re.search(r'field "(\w+)"', str(error))
    return f"wrong settings: TIDEMILL_{field[1].upper()}: not valid JSON" if field else f"wrong settings: {error}"


def _complain(line: str, code: int) -> int:
    print(f"tidemill: {' '.join(line.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
