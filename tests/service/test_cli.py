"""Exit codes, and one line on stderr for whatever goes wrong."""

import argparse
import builtins
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from confluent_kafka import KafkaError, KafkaException

from service import cli, entry
from service.cli import COMMANDS, main
from service.process import UNMENDABLE, Fatal, Unmendable
from tests.redis_server import RedisServer
from tests.service.processes import ROOT


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("TIDEMILL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TIDEMILL_REDIS_URL", "redis://127.0.0.1:1/0")  # nobody listens there
    monkeypatch.setenv("TIDEMILL_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("TIDEMILL_THREADS", str(torch.get_num_threads()))


def line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr; nothing is on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert err.count("\n") == 1, err
    return err.strip()


def ended(*arguments: str) -> object:
    """What argparse ends with."""
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    return raised.value.code


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--help") == 0
    assert "trainer" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("swim",),
        ("trainer", "--fast"),
        ("recs",),
        ("rollback", "abc"),
        ("rollback", "1.5"),
        ("rollback", "0"),
        ("rollback", "-1"),
        ("promote", "0"),
        ("verify", "0"),
        ("verify", "--from", "-1"),
        ("promote", "newest"),
        ("verify", "--from", "nothing"),
        ("--", "recs", "u1"),
        ("recs", "\udcff"),
        ("versions", "--limit", "0"),
        ("versions", "--limit", "-1"),
        ("versions", "--at", "yesterday"),
        ("versions", "--at", "2026-13-01"),
        ("versions", "--at", "0000-01-01T00:00:00Z"),
        ("up", "--scorers", "0"),
        ("up", "--rate", "1"),
        ("up", "--demo", "--seconds", "nan"),
        ("versions", "--limit", "many"),
        ("replay", "x.jsonl", "--rate", "1", "--speed", "2"),
        ("replay", "x.jsonl", "--rate", "0"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tidemill")
    assert err.endswith(" --help`\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value", "command"),
    [
        ("TIDEMILL_THREADS", "0", "trainer"),
        ("TIDEMILL_TOP_K", "many", "scorer"),
        ("TIDEMILL_LOG_LEVEL", "LOUD", "versions"),
        ("TIDEMILL_BATCH_EVENTS", "0", "trainer"),
    ],
)
def test_bad_settings(
    name: str, value: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    assert main([command]) == 2
    assert line(capsys).startswith(f"tidemill: wrong settings: {name}={value}: ")


@pytest.mark.parametrize("command", [["trainer"], ["versions"], ["up"], ["replay", "x.jsonl"]])
def test_wrong_json(command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TIDEMILL_KAFKA_CONFIG", "{not json")
    assert main(command) == 2
    assert line(capsys) == "tidemill: wrong settings: TIDEMILL_KAFKA_CONFIG: not valid JSON"


@pytest.mark.parametrize(
    "command", [["versions"], ["recs", "u1"], ["related", "i1"], ["rollback", "3"], ["promote"], ["verify"]]
)
def test_redis_is_unreachable(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 1
    assert line(capsys).startswith("tidemill: Redis: ")


@pytest.mark.parametrize("command", [*COMMANDS])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TIDEMILL_REDIS_URL", "127.0.0.1:6379"),
        ("TIDEMILL_REDIS_URL", '"redis://localhost"'),
        ("TIDEMILL_KAFKA_BOOTSTRAP", "kafka://localhost:9092"),
        ("TIDEMILL_KEY_PREFIX", ""),
        ("TIDEMILL_MODEL_NAME", "{shop}"),
        ("TIDEMILL_ITEMS_TOPIC", "events"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_every_command(
    command: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    needed = {"replay": ["x"], "recs": ["u"], "related": ["i"], "rollback": ["1"], "evaluate": ["x"]}
    assert main([command, *needed.get(command, [])]) == 2
    assert line(capsys).startswith(f"tidemill: wrong settings: {name}")


@pytest.mark.parametrize("command", ["replay", "evaluate"])
def test_a_file_that_is_not_there(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(tmp_path / "none.jsonl")]) == 1
    said = line(capsys)
    assert said.startswith("tidemill")
    assert "none.jsonl" in said
    assert "No such file" in said


class Failing:
    """A command that ends as it is told to."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """None."""

    def run(self, args: argparse.Namespace) -> int:
        raise self._error


ERRORS = [
    (ValueError("no\nsense"), "tidemill: ValueError: no sense (TIDEMILL_LOG_LEVEL=DEBUG shows where)"),
    (TypeError("x"), "tidemill: TypeError: x (TIDEMILL_LOG_LEVEL=DEBUG shows where)"),
    (EOFError("x"), "tidemill: EOFError: x (TIDEMILL_LOG_LEVEL=DEBUG shows where)"),
    (KeyError("x"), "tidemill: KeyError: 'x' (TIDEMILL_LOG_LEVEL=DEBUG shows where)"),
    ("\udcff".encode, None),
    (KafkaException(KafkaError(KafkaError._INVALID_ARG, "no such setting")), "tidemill: Kafka: no such setting"),
    (KafkaException("odd"), "tidemill: Kafka: odd"),
    (OSError(2, "No such file", "x"), "tidemill: [Errno 2] No such file: 'x'"),
    (Fatal("cannot\ngo on"), "tidemill: cannot go on"),
]


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(("error", "said"), ERRORS)
def test_whatever_else_goes_wrong_is_one_line(
    error: Exception | Callable[[], bytes], said: str | None, debug: bool, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if not isinstance(error, Exception):
        try:
            error()
        except UnicodeEncodeError as raised:
            error = raised
    assert isinstance(error, Exception)
    command = Failing(error)
    monkeypatch.setattr(cli, "load", lambda name: command)
    if debug:
        monkeypatch.setenv("TIDEMILL_LOG_LEVEL", "DEBUG")
    assert main(["promote"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    *before, last = err.splitlines()
    assert last == said or (said is None and last.startswith("tidemill: UnicodeEncodeError: "))
    assert ("Traceback (most recent call last):" in before) == debug
    assert debug or not before


def test_what_no_new_start_mends_is_told_to_a_supervisor_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = Failing(Unmendable("either, or"))
    monkeypatch.setattr(cli, "load", lambda name: command)
    assert (main(["promote"]), main(["promote"], unmendable=UNMENDABLE)) == (1, UNMENDABLE)
    assert capsys.readouterr().err == "tidemill: either, or\n" * 2
    assert UNMENDABLE not in (0, 1, 2)


def run_as_program(*arguments: str, redirections: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["sh", "-c", f'exec "$0" -m service.cli "$@" {redirections}', sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        check=False,
    )


def test_a_user_that_is_not_utf8() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "recs", b"\xff\xfe"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"is not UTF-8" in done.stderr


def test_a_terminal_that_cannot_show_a_title(server: RedisServer) -> None:
    with server.client() as redis:
        redis.call("SET", "ascii:recs:u1", '{"title": "\u00e9t\u00e9 \u2603"}'.encode())
    done = run_as_program(
        "recs", "u1", TIDEMILL_REDIS_URL=server.url, TIDEMILL_KEY_PREFIX="ascii", PYTHONIOENCODING="ascii"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\xe9t\\xe9 \\u2603" in done.stdout


@pytest.mark.parametrize("redirections", ["<&-", ">&-", "<&- >&-", "<&- >&- 2>&-"])
def test_standard_streams_that_are_closed(redirections: str) -> None:
    code = (
        "import os, sys\n"
        "from service.cli import repair_standard_streams\n"
        "repair_standard_streams()\n"
        "first = os.open('/', os.O_RDONLY)\n"
        "print('said', file=sys.stderr)\n"
        "print('said', flush=True)\n"
        "raise SystemExit(0 if first > 2 else 1)\n"
    )
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {redirections}', sys.executable, code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_ctrl_c_while_the_command_is_still_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str, *rest: Any) -> Any:
        if name == "service.cli":
            raise KeyboardInterrupt
        return imported(name, *rest)

    imported = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", interrupted)
    assert entry.main() == 130
