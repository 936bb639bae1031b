"""What `tidemill evaluate` says, by the settings of a trainer."""

import gzip
import io
import json
import sys
from pathlib import Path

import pytest
import torch

from service.cli import main
from tests.service.training.evaluation.test_evaluate_file import lines_of


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, clean_settings: None) -> None:
    monkeypatch.setenv("TIDEMILL_THREADS", str(torch.get_num_threads()))


def test_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "e.jsonl").write_text("\n".join(lines_of(300)))
    assert main(["evaluate", str(tmp_path / "e.jsonl")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    assert out.startswith("e.jsonl: 300 events, ")
    assert "  NDCG@20 0." in out
    assert out.endswith(" events/s)\n")


def test_what_was_not_taken_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMILL_EVENT_WEIGHTS", '{"click": 1, "blink": 2}')
    monkeypatch.setenv("TIDEMILL_FUTURE_TOLERANCE_HOURS", "1e6")
    event = {"user_id": "u", "item_id": "i", "type": "click", "ts": 1000, "event_id": "e"}
    lines = [event, {**event, "type": "view"}, event, {**event, "event_id": "f", "type": "blink"}, []]
    lines.append({**event, "event_id": "g", "ts": 4102444800000})  # the year 2100 is tolerated
    (tmp_path / "e.gz").write_bytes(gzip.compress("\r\n".join(map(json.dumps, lines)).encode()))
    assert main(["evaluate", str(tmp_path / "e.gz")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("e.gz: 3 events, ")
    assert "; 1 redelivered; 2 lines left out (1 unknown_type, 1 not_an_object), the first: line 2: type 'view'" in out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"item_id":"i","title":"A"}\n', "no line of standard input is an event: line 1: user_id: Field required; "),
        (b"", "standard input is empty"),
        (gzip.compress(b"\n".join(line.encode() for line in lines_of(900)))[:-500], "is cut off in the middle; "),
    ],
)
def test_a_file_of_no_use_is_an_error(
    content: bytes, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "e").write_bytes(content)
    with (tmp_path / "e").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        assert main(["evaluate", "-"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tidemill: ")
    assert said in err
    assert err.count("\n") == 1
