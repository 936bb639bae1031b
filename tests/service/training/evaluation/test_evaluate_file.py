import gzip
import json
from pathlib import Path

import pytest

from service.training.evaluation.evaluate_file import evaluate_file
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


@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.gz"])
def test_a_file_is_ranked_and_learned_from(tmp_path: Path, name: str) -> None:
    told: list[tuple[int, int]] = []
    path = write(tmp_path / name, lines_of(4000))
    result = evaluate_file(path, SMALL, progress=lambda done, total: told.append((done, total)))
    assert result.events == 4000
    assert told[-1] == (4000, 4000)
    assert result.rejected == 0
    assert result.ranked == pytest.approx(3200, abs=256)  # but for the batch that the first fifth ends in
    assert result.hit_rate > 0.8  # 20 of 100 by chance
    assert 0 < result.mrr < result.ndcg < result.hit_rate
    assert result.events_per_second > 0


def test_exactly_those_are_ranked_whose_user_and_item_were_known(tmp_path: Path) -> None:
    pairs = [("u", "a"), ("u", "b"), ("v", "a"), ("v", "b"), ("u", "a"), ("u", "c"), ("w", "a"), ("v", "c")]
    lines = [json.dumps({"user_id": u, "item_id": i, "type": "click", "ts": 1}) for u, i in pairs]
    path = write(tmp_path / "few.jsonl", lines)
    # v b; u a; v c. Not: u b (new item), v a (new user), u c (new item), w a (new user)
    assert evaluate_file(path, SMALL, warm_up=0).ranked == 3
    assert evaluate_file(path, SMALL, warm_up=0, batch_events=1).ranked == 3


def test_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.jsonl", [*lines_of(5), "", "{", '{"user_id": "u"}'])
    result = evaluate_file(path, SMALL)
    assert (result.events, result.rejected) == (5, 2)


def test_an_empty_file_and_a_missing_one(tmp_path: Path) -> None:
    result = evaluate_file(write(tmp_path / "empty.jsonl", []), SMALL)
    assert (result.events, result.ranked, result.hit_rate) == (0, 0, 0.0)
    with pytest.raises(FileNotFoundError):
        evaluate_file(tmp_path / "none.jsonl", SMALL)
