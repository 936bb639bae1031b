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
from service.model.config import ModelConfig
from service.model.registry import NEW_MODEL
from service.training.effort import Effort
from service.training.evaluation import prequential
from service.training.evaluation.evaluate_file import Evaluation, evaluate_file
from service.training.evaluation.measures import PairedSums
from service.training.evaluation.prequential import Examined
from service.training.evaluation.ranked import Ranked
from service.training.evaluation.ranked_events import FAR
from service.training.evaluation.slices import names_of
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


def evaluated(
    path: Path, weights: Mapping[str, float] | None = None, config: ModelConfig = SMALL, **more: Any
) -> tuple[Evaluation, FileReading]:
    rules = DecodeRules() if weights is None else DecodeRules(event_types=weights)
    reading = open_reading(path, "events", rules)
    history = config.history.model_copy(update={"event_weights": rules.event_types})
    learner = Learner(replace(config, history=history))
    try:
        return evaluate_file(reading, learner, **more), reading
    finally:
        reading.file.close()


@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.gz"])
def test_a_file_is_ranked_and_learned_from(tmp_path: Path, name: str) -> None:
    told: list[int] = []
    result, reading = evaluated(
        write(tmp_path / name, lines_of(4000)), progress=lambda lines, share: told.append(lines)
    )
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
    assert one.quality == other.quality
    assert one.slices == other.slices


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


def test_slices_by_hand(tmp_path: Path) -> None:
    pairs = [("u", "a"), ("u", "b"), ("v", "a"), ("v", "b"), ("u", "a"), ("u", "c"), ("w", "a"), ("v", "c"), ("u", "c")]
    lines = [json.dumps({"user_id": u, "item_id": i, "type": "click", "ts": 1}) for u, i in pairs]
    found, _ = evaluated(write(tmp_path / "few.jsonl", ["{}", *lines[:4], "", *lines[4:]]), warm_up=0)
    # v b; u a again, before which a had 2 events; v c; u c again
    assert found.each.line.tolist() == [5, 7, 10, 11]
    assert [names_of(bits) for bits in found.each.slices.tolist()] == [
        ["items_1_4", "novel", "new_users", "history_0_1"],
        ["items_1_4", "repeated", "new_users", "history_2"],
        ["items_1_4", "novel", "new_users", "history_2"],
        ["items_1_4", "repeated", "history_3_4"],
    ]
    assert [found.counts.items.ids[item] for item in found.each.item] == ["b", "a", "c", "c"]
    assert [found.counts.users.ids[user] for user in found.each.user] == ["v", "u", "v", "u"]


def test_slices_are_of_the_whole(tmp_path: Path) -> None:
    found, _ = evaluated(write(tmp_path / "e", lines_of(2000)))
    slices = found.slices
    for names in (("items_0", "items_1_4", "items_5_up"), ("novel", "repeated")):
        assert sum(slices[name].ranked for name in names) == found.ranked
        hits = sum(slices[name].hit_rate.value * slices[name].ranked for name in names)
        assert hits / found.ranked == pytest.approx(found.hit_rate)
    assert sum(slices[name].ranked for name in slices if name.startswith("history")) == found.ranked
    assert slices["items_0"].ranked == 0
    assert slices["new_users"].ranked > 0


def test_an_item_that_only_the_catalogue_has_is_ranked(tmp_path: Path) -> None:
    pairs = [("u", "a"), ("u", "b"), ("u", "c"), ("u", "b")]
    lines = [json.dumps({"user_id": u, "item_id": i, "type": "click", "ts": 1}) for u, i in pairs]
    items = [json.dumps({"item_id": item, "title": item}) for item in ("b", "d", "shut")]
    items.append(json.dumps({"item_id": "shut", "title": "-", "available": False}))
    path = write(tmp_path / "e", lines)
    catalogue = open_reading(write(tmp_path / "items.gz", items), "items", DecodeRules())
    found, _ = evaluated(path, warm_up=0, items=catalogue)
    catalogue.file.close()
    assert found.each.line.tolist() == [2, 4]
    assert [(name, each.ranked) for name, each in found.slices.items() if name.startswith("items")] == [
        ("items_0", 1),
        ("items_1_4", 1),
        ("items_5_up", 0),
    ]
    assert found.each.ahead.max() < 4
    assert evaluated(path, warm_up=0)[0].each.line.tolist() == [4]


@pytest.mark.parametrize("limit", [1, 300, 555])
def test_the_first_events_are_those_of_a_file_cut_there(tmp_path: Path, limit: int) -> None:
    lines = lines_of(600)
    lines[100:100] = ["{}", ""]
    cut = limit if limit < 100 else limit + 2
    whole, reading = evaluated(write(tmp_path / "whole", lines), limit=limit)
    part, other = evaluated(write(tmp_path / "part", lines[:cut]))
    assert whole.events == part.events == limit
    assert reading.rejected == other.rejected
    assert (whole.quality, whole.slices) == (part.quality, part.slices)
    assert whole.each.line.tolist() == part.each.line.tolist()


def test_a_limit_beyond_the_file_is_none(tmp_path: Path) -> None:
    found, _ = evaluated(write(tmp_path / "e", lines_of(30)), limit=31)
    assert found.events == 30


def test_what_channels_had_ranked_alone_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a channel is there in some batches only: elsewhere it lists nothing."""
    rank, calls = prequential.rank, 0

    def with_channels(*args: Any) -> Examined:
        nonlocal calls
        calls += 1
        ranked = rank(*args).ranked
        alone = {"first": ranked.ahead + 1, **({"late": ranked.ahead * 0} if calls > 2 else {})}
        origin = tuple("late" if k % 2 else "first" for k in range(len(ranked.ahead)))
        return Examined(Ranked(ranked.place, ranked.ahead, alone, origin), PairedSums())

    monkeypatch.setattr(prequential, "rank", with_channels)
    found, _ = evaluated(write(tmp_path / "e", lines_of(1000)), warm_up=0)
    assert list(found.channels) == ["first", "late"]
    assert (found.each.alone["first"] == found.each.ahead + 1).all()
    late = found.each.alone["late"]
    assert sorted(set(late.tolist())) == [0, FAR]
    assert found.channels["late"].hit_rate.value == pytest.approx((late == 0).mean())
    assert {found.each.origins[code] for code in found.each.origin} == {"first", "late"}


def test_a_new_model_s_channels_and_origins(tmp_path: Path) -> None:
    found, _ = evaluated(write(tmp_path / "e", lines_of(2000)), config=NEW_MODEL)
    assert list(found.channels) == ["neighbours", "popularity"]
    assert found.channels["neighbours"].ranked == found.channels["popularity"].ranked == found.ranked > 1000
    assert found.channels["neighbours"].hit_rate.value > found.channels["popularity"].hit_rate.value + 0.2
    assert found.hit_rate > 0.8  # 20 of 100 by chance
    assert {found.each.origins[code] for code in found.each.origin} <= {
        "",
        "neighbours",
        "popularity",
        "history",
        "reserve",
    }


def test_effort_is_what_the_ranker_learns(tmp_path: Path) -> None:
    path = write(tmp_path / "e", lines_of(1500))
    full, none = (evaluated(path, config=NEW_MODEL, effort=Effort(lessons=share))[0] for share in (1.0, 0.0))
    assert none.ranked == full.ranked
    assert (none.each.ahead != full.each.ahead).any()
