"""The protocol period by period: by hand, and over a small world."""

import json
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from consumers.decode import DecodeRules
from consumers.event_file import FileError
from consumers.file_reading import open_reading
from service.training.evaluation.ader import AderEvaluation, evaluate_by_periods
from service.training.learner import Learner
from tests.service.model.configs import small
from tests.service.training.evaluation.frozen_learner import FrozenLearner
from tests.service.training.streams import world_of_classes


def event(user: str, item: str, period: object, ts: int = 0, **more: object) -> str:
    return json.dumps(
        {"user_id": user, "item_id": item, "type": "click", "ts": ts, "context": {"period": period}, **more}
    )


def evaluated(path: Path, lines: list[str], learner: Any = None, **more: Any) -> AderEvaluation:
    path.write_text("\n".join(lines))
    reading = open_reading(path, "events", DecodeRules())
    try:
        return evaluate_by_periods(reading, cast(Learner, learner or FrozenLearner(small())), **more)
    finally:
        reading.file.close()


TWO_PERIODS = [
    *(event("s", item, 0) for item in "abcabaa"),  # a 4 times, b twice, c once: in this order
    event("p", "c", 1, 10),  # the first of its session
    event("q", "a", 1, 11),
    event("p", "new", 1, 12),  # no earlier period has it
    event("p", "b", 1, 13),  # from c: second
    event("r", "new", 1, 14),  # nothing is left of this session
    event("q", "new", 1, 15),  # nor is there anything to predict in this one
    event("p", "a", 1, 16),  # from c, b: first
    event("s", "b", 1, 17),  # a session of its own: what its user did in period 0 is another
    event("s", "c", 1, 18),  # from b: third
]


def test_two_periods_by_hand(tmp_path: Path) -> None:
    learner = FrozenLearner(small())
    found = evaluated(tmp_path / "e", TWO_PERIODS, learner)
    (period,) = found.periods
    assert (found.events, found.ranked, period.period) == (16, 3, 1)
    assert period.ahead.tolist() == [2, 1, 0]  # session by session: that of s, whom period 0 knows, and that of p
    assert period.predictions.line.tolist() == [16, 11, 14]
    assert period.predictions.ts.tolist() == [18, 13, 16]
    assert period.predictions.previous_ts.tolist() == [17, 10, 13]
    assert learner.asked == ["b", "c", "bc"]
    assert learner.times_asked == [pytest.approx(each) for each in ((0.018, 0.001), (0.013, 0.003), (0.016, 0.003))]
    assert learner.learned == [list("abcabaa"), ["c", "a", "new", "b", "new", "new", "a", "b", "c"]]
    assert found.recall.value == 1
    assert found.mrr.value == pytest.approx((1 / 2 + 1 + 1 / 3) / 3)


def test_periods_count_alike_and_each_is_ranked_before_it_is_learned_from(tmp_path: Path) -> None:
    lines = [
        *(event("s", item, 0) for item in "aab"),
        *(event("t", item, 3) for item in "bbb"),  # b second, twice
        *(event("t", item, 4) for item in "ab"),  # b first by now
    ]
    learner = FrozenLearner(small())
    found = evaluated(tmp_path / "e", lines, learner, batch_events=2)
    assert [each.ahead.tolist() for each in found.periods] == [[1, 1], [0]]
    assert found.mrr.value == pytest.approx((1 / 2 + 1) / 2)  # not (1/2 + 1/2 + 1) / 3
    assert learner.learned == [["a", "a"], ["b"], ["b", "b"], ["b"], ["a", "b"]]
    assert learner.evaluate_sample == 0


def test_a_history_is_the_latest_items(tmp_path: Path) -> None:
    lines = [*(event("s", item, 0) for item in "abcdefgh"), *(event("t", item, 1) for item in "abcdefgh")]
    learner = FrozenLearner(small(length=3))
    evaluated(tmp_path / "e", lines, learner)
    assert learner.asked == ["a", "ba", "cba", "dcb", "edc", "fed", "gfe"]


def test_dislikes_and_redeliveries_are_in_no_session(tmp_path: Path) -> None:
    lines = [
        *(event("s", item, 0) for item in "abc"),
        event("t", "a", 1, event_id="1"),
        event("t", "b", 1, type="dislike"),
        event("t", "a", 1, event_id="1"),
        event("t", "c", 1, event_id="2"),
    ]
    learner = FrozenLearner(small())
    found = evaluated(tmp_path / "e", lines, learner)
    assert (found.ranked, learner.asked) == (1, ["a"])


def test_a_period_without_predictions_has_no_part_in_the_mean(tmp_path: Path) -> None:
    lines = [*(event("s", item, 0) for item in "ab"), event("t", "a", 1), *(event("t", item, 2) for item in "ab")]
    found = evaluated(tmp_path / "e", lines)
    assert [len(each.ahead) for each in found.periods] == [0, 1]
    assert found.mrr.value == pytest.approx(1 / 2)
    none = evaluated(tmp_path / "e", lines[:3])
    assert (none.ranked, none.mrr.value) == (0, 0.0)
    assert math.isnan(none.mrr.standard_error)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([event("s", "a", 0), event("s", "a", "1")], "line 2: context.period is not a whole number"),
        ([event("s", "a", True)], "line 1: context.period is not a whole number"),
        ([event("s", "a", 0, context=None)], "line 1: context.period is not a whole number"),
        ([event("s", "a", 2), "", "{", event("s", "a", 1)], "line 4: period 1 after period 2"),
        ([event("s", "a", 1), event("s", "b", 1)], "has one period"),
        (["{}"], "no line of .* is an event"),
    ],
)
def test_files_without_periods_are_an_error(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(FileError, match=said):
        evaluated(tmp_path / "e", lines)


def test_lines_that_are_no_event_belong_to_no_period(tmp_path: Path) -> None:
    found = evaluated(tmp_path / "e", ["{}", *TWO_PERIODS[:9], "{}", *TWO_PERIODS[9:], "[]"])
    assert [each.ahead.tolist() for each in found.periods] == [[2, 1, 0]]
    assert found.periods[0].predictions.line.tolist() == [18, 13, 16]


def test_only_the_first_events(tmp_path: Path) -> None:
    whole = evaluated(tmp_path / "e", TWO_PERIODS[:14])
    part = evaluated(tmp_path / "e", TWO_PERIODS, limit=14)
    assert part.events == whole.events == 14
    assert [each.ahead.tolist() for each in part.periods] == [each.ahead.tolist() for each in whole.periods] == [[1, 0]]


def test_a_real_learner_predicts_and_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, float | None]] = []
    world = world_of_classes(3000, seed=0)
    lines = [event(f"{user}-{k // 1000}", item, k // 1000, k) for k, (user, item, _) in enumerate(world) if item]
    config = small(dim=16, negatives=64, length=20)
    found = evaluated(tmp_path / "e", lines, Learner(config), progress=lambda *each: told.append(each))
    first, second = found.periods
    assert second.quality.hit_rate.value > first.quality.hit_rate.value
    assert second.quality.hit_rate.value > 0.4  # by chance 0.2
    assert [lines for lines, _ in told[:5]] == [256, 512, 768, 1000, 1256]
    assert told[-1] == (3000, 1.0)
    assert np.all(np.diff([share or 0.0 for _, share in told]) >= 0)
