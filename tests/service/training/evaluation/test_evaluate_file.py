"""Test, then train, over one pass of a file."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consumers.decode import DecodeRules
from consumers.event_file import FileError
from consumers.file_reading import FileReading, open_reading
from service.training.evaluation.evaluate_file import Evaluation, evaluate_file
from service.training.learner import Learner
from tests.service.model.configs import small
from tests.service.training.streams import world_of_classes

SMALL = small(dim=16, negatives=64, length=20, replay_capacity=200_000, replay_recent=20_000)


def write(path: Path, lines: list[str]) -> Path:
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        file.writelines(line + "\n" for line in lines)
    return path


def lines_of(n: int) -> list[str]:
    return [
        json.dumps({"user_id": user, "item_id": item, "type": kind, "ts": 1_600_000_000_000 + k})
        for k, (user, item, kind) in enumerate(world_of_classes(n, seed=0))
    ]


def evaluated(path: Path, weights: Mapping[str, float] | None = None, **more: Any) -> tuple[Evaluation, FileReading]:
    rules = DecodeRules() if weights is None else DecodeRules(event_types=weights)
    reading = open_reading(path, "events", rules)
    learner = Learner(replace(SMALL, history=SMALL.history.model_copy(update={"event_weights": rules.event_types})))
    try:
        return evaluate_file(reading, learner, **more), reading
    finally:
        reading.file.close()


@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.gz"])
def test_a_file_is_ranked_and_learned_from(tmp_path: Path, name: str) -> None:
    told: list[int] = []
    result, reading = evaluated(write(tmp_path / name, lines_of(4000)), progress=told.append)
    assert result.events == 4000
    assert (told[0], told[-1]) == (256, 4000)
    assert (reading.accepted, reading.rejected) == (4000, {})
    assert result.ranked == pytest.approx(3200, abs=256)  # but for the batch that the first fifth ends in
    assert result.hit_rate > 0.8  # 20 of 100 by chance
    assert 0 < result.mrr < result.ndcg < result.hit_rate
    assert result.events_per_second > 0


def test_exactly_those_are_ranked_whose_user_and_item_were_known(tmp_path: Path) -> None:
    pairs = [("u", "a"), ("u", "b"), ("v", "a"), ("v", "b"), ("u", "a"), ("u", "c"), ("w", "a"), ("v", "c")]
    lines = [json.dumps({"user_id": u, "item_id": i, "type": "click", "ts": 1}) for u, i in pairs]
    path = write(tmp_path / "few.jsonl", lines)
    # v b; u a; v c. Not: u b (new item), v a (new user), u c (new item), w a (new user)
    assert evaluated(path, warm_up=0)[0].ranked == 3
    assert evaluated(path, warm_up=0, batch_events=1)[0].ranked == 3
    # the first four lines are half of the file
    assert evaluated(path, warm_up=0.5, batch_events=1)[0].ranked == 2


def test_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.jsonl", [*lines_of(5), "", "{", '{"user_id": "u"}'])
    result, reading = evaluated(path)
    assert (result.events, reading.rejected) == (5, {"not_json": 1, "missing_field": 1})


def test_redeliveries_count_once(tmp_path: Path) -> None:
    lines = [json.dumps({**json.loads(line), "event_id": f"e{n}"}) for n, line in enumerate(lines_of(300))]
    once, _ = evaluated(write(tmp_path / "once", lines))
    twice, reading = evaluated(write(tmp_path / "twice", [each for line in lines for each in (line, line)]))
    assert (once.events, once.duplicates) == (300, 0)
    assert (twice.events, twice.duplicates, reading.accepted) == (300, 300, 600)


def test_weights_go_by_the_name_of_the_type(tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", lines_of(1000))
    weights = {"view": 1.0, "click": 2.0, "add_to_cart": 3.0, "purchase": 4.0, "blink": 0.0}
    one, _ = evaluated(path, weights)
    other, _ = evaluated(path, dict(reversed(weights.items())))
    assert one.ranked > 100
    assert replace(one, seconds=0.0) == replace(other, seconds=0.0)


def test_types_of_ones_own_and_types_left_out(tmp_path: Path) -> None:
    lines = [line.replace('"click"', '"blink"').replace('"view"', '"blink"') for line in lines_of(200)]
    result, reading = evaluated(write(tmp_path / "e", lines), {"blink": 1.0})
    blinks = sum('"blink"' in line for line in lines)
    assert blinks > 0
    assert result.events == blinks
    assert reading.rejected.total() == 200 - blinks


def test_an_empty_file_and_one_without_events(tmp_path: Path) -> None:
    for lines in ([], ["{}"]):
        with pytest.raises(FileError):
            evaluated(write(tmp_path / "e", lines))
