"""The command line. Exit codes: 0 done, 1 failed at run time, 2 wrong usage; errors are one line on stderr.

A command is a file in `service.commands`, which is imported when it is asked for: `tidemill --help` need not wait for
torch.
"""

import argparse
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

from pydantic import ValidationError
from pydantic_settings import SettingsError

from model_store.errors import ModelStoreError
from service.process import Unmendable, WrongUsage, kafka_words

COMMANDS = {
    "up": "run everything on this machine",
    "trainer": "learn from events and publish versions",
    "scorer": "follow events and versions and write lists; any number of them",
    "replay": "publish a file of events",
    "recs": "show a user's list",
    "related": "show what goes with an item",
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


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see `{self.prog} --help`\n")


def main(arguments: Sequence[str] | None = None, *, unmendable: int = 1) -> int:
    """Run one command and return its exit code. Raises SystemExit for wrong usage and after `--help`.

    unmendable: the exit code where the same command would end so at each new start.
    """
    repair_standard_streams()
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser, parsers = build_parser()
    if not given or given[0] not in COMMANDS:
        parser.parse_args(given)  # ends with the help, or with what is wrong
        parser.error("the command comes first")
    try:
        command = load(given[0])
        command.arguments(parsers[given[0]])
        return command.run(parser.parse_args(given))
    except WrongUsage as error:
        parsers[given[0]].error(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # whoever read the output has left: nothing more to say, also not at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValidationError, SettingsError) as error:
        from service.settings_text import complaint  # here: `tidemill --help` has no settings

        return _complain(f"wrong settings: {complaint(error)}", 2)
    except Unmendable as error:
        return _complain(str(error), unmendable)
    except (OSError, RuntimeError, ModelStoreError) as error:
        return _complain(str(error), 1)
    except Exception as error:
        return _complain(_told(error), 1)


def repair_standard_streams() -> None:
    """What was closed when we were started leads to nowhere, or files and sockets of ours would take its place; and a
    character that the terminal does not know is shown as its number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - for as long as we run
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def build_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser, and those of the commands, which do not know their arguments yet."""
    parser = Parser(
        prog="tidemill",
        description="A streaming recommender. Settings are environment variables, TIDEMILL_*; see the README.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    return parser, {name: commands.add_parser(name, help=what) for name, what in COMMANDS.items()}


def load(name: str) -> Command:
    """The file of a command in COMMANDS."""
    return cast(Command, importlib.import_module(f"service.commands.{name}"))


def _told(error: Exception) -> str:
    """Of an error that nobody expected: what it is."""
    if (words := kafka_words(error)) is not None:
        return f"Kafka: {words}"
    return f"{type(error).__name__}: {error} (TIDEMILL_LOG_LEVEL=DEBUG shows where)"


def _complain(line: str, code: int) -> int:
    if os.environ.get("TIDEMILL_LOG_LEVEL", "").upper() == "DEBUG":
        traceback.print_exc()
    print(f"tidemill: {' '.join(line.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
