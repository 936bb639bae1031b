"""The command line. Exit codes: 0 done, 1 failed at run time, 2 wrong usage; errors are one line on stderr.

A command is a file in `service.commands`, which is imported when it is asked for: `tidemill --help` need not wait for
torch.
"""

import argparse
import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from pydantic import ValidationError
from pydantic_settings import SettingsError

from model_store.errors import ModelStoreError
from service.process import WrongUsage

COMMANDS = {
    "up": "run everything on this machine",
    "trainer": "learn from events and publish versions",
    "scorer": "follow events and versions and write lists; any number of them",
    "replay": "publish a file of events",
    "recs": "show a user's list",
    "versions": "show which versions there are and which one is live",
    "rollback": "make an older version live and keep it so until `promote`",
    "promote": "make version N, or the newest, live, and follow new ones again",
    "verify": "make version N again from the events, and compare every bit",
    "evaluate": "prequential evaluation of a file, in one process",
}


class Command(Protocol):
    """What each file of `service.commands` has."""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds what can be given to the command."""

    def run(self, args: argparse.Namespace) -> int:
        """Does it; the exit code. Raises WrongUsage, Fatal and what the parts below raise."""
        ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Raises SystemExit for wrong usage and after `--help`."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser, parsers = build_parser()
    if not given or given[0] not in COMMANDS:
        parser.parse_args(given)  # ends with the help, or with what is wrong
        parser.error("the command comes first")
    command = load(given[0])
    command.arguments(parsers[given[0]])
    args = parser.parse_args(given)
    try:
        return command.run(args)
    except WrongUsage as error:
        parsers[given[0]].error(str(error))
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


def build_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser, and those of the commands, which do not know their arguments yet."""
    parser = argparse.ArgumentParser(
        prog="tidemill",
        description="A streaming recommender. Settings are environment variables, TIDEMILL_*; see the README.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    return parser, {name: commands.add_parser(name, help=what) for name, what in COMMANDS.items()}


def load(name: str) -> Command:
    """The file of a command in COMMANDS."""
    return cast(Command, importlib.import_module(f"service.commands.{name}"))


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
