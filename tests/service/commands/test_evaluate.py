"""What `tidemill evaluate` says, by the settings of a trainer."""

import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from service.cli import main
from service.training.evaluation import plot
from service.training.evaluation.slices import SLICES
from tests.service.training.evaluation.test_evaluate_file import lines_of


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, clean_settings: None) -> None:
    monkeypatch.setenv("TIDEMILL_THREADS", str(torch.get_num_threads()))


def test_a_line_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "e.jsonl").write_text("\n".join(lines_of(300)))
    assert main(["evaluate", str(tmp_path / "e.jsonl")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    first, blank, head, *rows, stated = out.splitlines()
    assert first.startswith("e.jsonl: 300 events, ")
    assert "  NDCG@20 0." in first
    assert first.endswith(" events/s)")
    assert blank == ""
    assert head.split("  ")[-2:] == ["neighbours alone", "popularity alone"]
    assert [row.split("  ")[0] for row in rows] == ["all", *(each.words for each in SLICES)]
    assert len({len(row) for row in (head, *rows)}) == 1
    assert stated.startswith("±: standard error")


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


def events_file(path: Path, n: int = 600) -> str:
    path.write_text("\n".join(lines_of(n)))
    return str(path)


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", events_file(tmp_path / "e"), "--events", "500", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    figures = ["ranked", "hr_at_20", "mrr_at_20", "ndcg_at_20", "standard_error"]
    assert list(said) == ["protocol", "events", *figures, "slices", "channels", "seconds"]
    assert (said["protocol"], said["events"]) == ("prequential", 500)
    assert list(said["channels"]) == ["neighbours", "popularity"]
    assert list(said["slices"]) == [each.name for each in SLICES]
    for part in (said, said["slices"]["novel"], said["channels"]["neighbours"]):
        assert part["ranked"] > 0
        assert part["standard_error"]["hr_at_20"] > 0
    assert said["slices"]["items_0"]["standard_error"]["hr_at_20"] is None


def test_what_is_left_out_is_on_stderr_beside_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "e").write_text("\n".join([*lines_of(5), "{}"]))
    assert main(["evaluate", str(tmp_path / "e"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["ranked"] == 0
    assert err.startswith("tidemill: e: 1 lines left out")


def figures(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    """The JSON that the command prints, without the seconds."""
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    del found["seconds"]
    return found


def test_ranks_are_those_of_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(capsys, events_file(tmp_path / "e"), "--ranks", tmp_path / "ranks")
    ranks = [json.loads(line) for line in (tmp_path / "ranks").read_text().splitlines()]
    events = [json.loads(line) for line in lines_of(600)]
    for each in ranks:
        event = events[each["line"] - 1]
        assert (each["user"], each["item"]) == (event["user_id"], event["item_id"])
        assert (each["rank"] is None) == (each["origin"] is None)
    assert [each["line"] for each in ranks] == sorted({each["line"] for each in ranks})
    for name, part in {"": found, **found["slices"]}.items():
        here = [each["rank"] for each in ranks if not name or name in each["slices"]]
        hits = [rank for rank in here if rank is not None and rank <= 20]
        assert part["ranked"] == len(here)
        assert part["hr_at_20"] * len(here) == pytest.approx(len(hits))
        assert part["mrr_at_20"] * len(here) == pytest.approx(sum(1 / rank for rank in hits))


def test_an_item_that_may_not_be_listed_has_no_rank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    event = {"user_id": "u", "type": "click", "ts": 1}
    lines = [{**event, "item_id": item} for item in "ab" * 300]
    (tmp_path / "e").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "items").write_text(json.dumps({"item_id": "b", "title": "B", "available": False}))
    figures(capsys, tmp_path / "e", "--items", tmp_path / "items", "--ranks", tmp_path / "ranks")
    ranks = [json.loads(line) for line in (tmp_path / "ranks").read_text().splitlines()]
    assert {(each["item"], each["rank"]) for each in ranks} == {("a", 1), ("b", None)}


def test_the_first_events_are_those_of_a_file_cut_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some = figures(capsys, events_file(tmp_path / "whole"), "--events", "500")
    (tmp_path / "cut").write_text("\n".join(lines_of(600)[:500]))
    assert some == figures(capsys, tmp_path / "cut")
    assert some["events"] == 500


def test_packed_or_piped_it_is_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = figures(capsys, events_file(tmp_path / "e"))
    (tmp_path / "packed").write_bytes(gzip.compress((tmp_path / "e").read_bytes()))
    assert figures(capsys, tmp_path / "packed") == wanted
    with (tmp_path / "packed").open("rb") as piped:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(piped))
        assert figures(capsys, "-") == wanted


def test_without_matplotlib_no_picture_is_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    assert main(["evaluate", events_file(tmp_path / "e", 5), "--plot", str(tmp_path / "p.png")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tidemill: --plot needs matplotlib (pip install 'tidemill[plot]')")
    assert err.count("\n") == 1
    assert not (tmp_path / "p.png").exists()


def test_a_file_given_twice_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = events_file(tmp_path / "e", 5)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", path, "--ranks", path])
    assert ended.value.code == 2
    assert "is given for two things" in capsys.readouterr().err
    assert (tmp_path / "e").read_text() == "\n".join(lines_of(5))


def test_a_channel_off_and_options_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["--set", "history.length=3", "--set", "network.dim=8", "--set", "network.negatives=32"]
    assert main(["evaluate", events_file(tmp_path / "e"), "--json", *changes]) == 0
    assert list(json.loads(capsys.readouterr().out)["channels"]) == ["neighbours", "network", "popularity"]
    assert main(["evaluate", str(tmp_path / "e"), "--json", "--off", "popularity"]) == 0
    assert list(json.loads(capsys.readouterr().out)["channels"]) == ["neighbours"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--off", "nobody"], "--off nobody: there is no such channel; there are neighbours, network, popularity"),
        (["--set", "ranker.share=2"], "--set ranker.share=2: RankerConfig.share: Input should be less"),
        (["--off", "popularity", "--set", "network.dim=8"], "draws its negatives by popularity, which is off"),
        (["--protocol", "ader", "--items", "items"], "--items has no place in it"),
        (["--ranks", "out", "--plot", "out"], "out is given for two things"),
        (["--events", "0"], "'0' is not a whole number from 1 on"),
        (["--protocol", "other"], "invalid choice: 'other'"),
    ],
)
def test_wrong_usage_is_a_line(
    more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plot, "check", lambda: None)
    (tmp_path / "items").write_text("")
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["evaluate", events_file(tmp_path / "e", 5), *more])
    except SystemExit as error:  # argparse's
        code = int(error.code or 0)
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert said in err


def test_what_cannot_be_written_is_said_before_anything_is_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", events_file(tmp_path / "e", 5), "--ranks", str(tmp_path / "no" / "r")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "cannot write" in err
    assert err.count("\n") == 1


def test_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert main(["evaluate", events_file(tmp_path / "e"), "--plot", str(tmp_path / "p.png")]) == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_period_by_period(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{**json.loads(line), "context": {"period": n // 300}} for n, line in enumerate(lines_of(900))]
    (tmp_path / "e").write_text("\n".join(map(json.dumps, lines)))
    ranks = tmp_path / "ranks"
    command = ["evaluate", str(tmp_path / "e"), "--protocol", "ader"]
    assert main([*command, "--json", "--ranks", str(ranks)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["protocol"] == "ader"
    assert [each["period"] for each in said["periods"]] == [1, 2]
    assert said["recall_at_20"] == pytest.approx(sum(each["recall_at_20"] for each in said["periods"]) / 2)
    written = [json.loads(line) for line in ranks.read_text().splitlines()]
    assert [line["period"] for line in written] == [1] * said["periods"][0]["ranked"] + [2] * said["periods"][1][
        "ranked"
    ]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "2 periods: Recall@20 " in out
    assert "mean of periods" in out
