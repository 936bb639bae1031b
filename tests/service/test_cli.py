"""Exit codes, and one line on stderr for whatever goes wrong."""

import os
from pathlib import Path

import pytest
import torch

from service.cli import main


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
        ("rollback", "first"),
        ("versions", "--limit", "many"),
        ("replay", "x.jsonl", "--rate", "1", "--speed", "2"),
        ("replay", "x.jsonl", "--rate", "0"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert err.splitlines()[0].startswith("usage: tidemill")
    assert "error: " in err.splitlines()[-1]


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
    assert line(capsys).startswith(f"tidemill: wrong settings: {name}: ")


@pytest.mark.parametrize("command", [["trainer"], ["versions"], ["up"], ["replay", "x.jsonl"]])
def test_wrong_json(command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TIDEMILL_KAFKA_CONFIG", "{not json")
    assert main(command) == 2
    assert line(capsys) == "tidemill: wrong settings: TIDEMILL_KAFKA_CONFIG: not valid JSON"


@pytest.mark.parametrize("command", [["versions"], ["recs", "u1"], ["rollback", "3"], ["promote"]])
def test_redis_is_unreachable(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 1
    assert line(capsys).startswith("tidemill: Redis: ")


def test_a_url_that_is_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TIDEMILL_REDIS_URL", "127.0.0.1:6379")
    assert main(["versions"]) == 1
    assert "redis://" in line(capsys)


@pytest.mark.parametrize("command", ["replay", "evaluate"])
def test_a_file_that_is_not_there(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(tmp_path / "none.jsonl")]) == 1
    said = line(capsys)
    assert said.startswith("tidemill")
    assert "none.jsonl" in said
    assert "No such file" in said
