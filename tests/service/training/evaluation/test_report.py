"""Tables, JSON and pictures of figures that are worked out by hand."""

import io
from dataclasses import replace

import numpy as np
import pytest

from service.model.history import HistoryRule
from service.training.evaluation import plot
from service.training.evaluation.ader import AderEvaluation, Period, Predictions
from service.training.evaluation.as_json import as_json
from service.training.evaluation.evaluate_file import Evaluation
from service.training.evaluation.ranked_events import FAR, RankedEvents
from service.training.evaluation.ranks_file import write_ranks
from service.training.evaluation.report import summary, table
from service.training.evaluation.stream_counts import StreamCounts
from tests.service.model.configs import small


def counts() -> StreamCounts:
    found = StreamCounts(HistoryRule.of(small().history))
    found.users.of(["u", "v"])
    found.items.of(["a", "b"])
    return found


FOUND = Evaluation(
    events=10,
    duplicates=0,
    skipped=0,
    each=RankedEvents(
        line=np.array([5, 6, 9]),
        user=np.array([0, 1, 0], np.int32),
        item=np.array([1, 0, 0], np.int32),
        ahead=np.array([0, 2, FAR], np.int32),
        slices=np.array([0b1010, 0b10010, 0b10010], np.uint16),
        origin=np.array([1, 1, 0], np.uint8),
        origins=("", "neighbours"),
        alone={"popularity": np.array([30, 30, 1], np.int32), "neighbours": np.array([0, 1, FAR], np.int32)},
    ),
    counts=counts(),
    seconds=2.0,
)


def test_the_table_by_hand() -> None:
    head, everything, *slices, stated = table(FOUND)
    assert head.split() == ["ranked", "HR@20", "MRR@20", "NDCG@20", "neighbours", "alone", "popularity", "alone"]
    assert everything.split("  ")[0] == "all"
    numbers = "3 0.6667 ± 0.2722 0.4444 ± 0.2400 0.5000 ± 0.2357 0.6667 0.3333"
    assert everything.split()[1:] == numbers.split()
    rows = {row[: row.index("  ")]: row.split()[-12:] for row in slices}
    assert rows["item had no event"][-6:] == ["0", "-", "-", "-", "-", "-"]
    assert rows["item is novel for the user"][-6:] == ["1", "1.0000", "1.0000", "1.0000", "1.0000", "0.0000"]
    assert rows["item had 1-4 events"][0] == "3"
    assert stated == "±: standard error of the mean, as if events were independent; of single channels the HR@20"
    assert summary(FOUND) == "3 ranked before being learned from: HR@20 0.6667  MRR@20 0.4444  NDCG@20 0.5000"


def test_json_by_hand() -> None:
    found = as_json(FOUND)
    assert found["hr_at_20"] == pytest.approx(2 / 3)
    assert found["standard_error"]["hr_at_20"] == pytest.approx((2 / 3 * 1 / 3 / 3) ** 0.5)
    assert found["slices"]["novel"]["ranked"] == 1
    assert found["slices"]["novel"]["standard_error"]["hr_at_20"] is None
    assert found["channels"]["popularity"]["mrr_at_20"] == pytest.approx(1 / 6)
    assert found["channels"]["neighbours"]["hr_at_20"] == pytest.approx(2 / 3)
    assert found["seconds"] == 2.0


def test_ranks_by_hand() -> None:
    file = io.BytesIO()
    write_ranks(file, FOUND)
    assert file.getvalue().decode().splitlines() == [
        '{"line":5,"user":"u","item":"b","rank":1,"origin":"neighbours","slices":["items_1_4","novel"]}',
        '{"line":6,"user":"v","item":"a","rank":3,"origin":"neighbours","slices":["items_1_4","repeated"]}',
        '{"line":9,"user":"u","item":"a","rank":null,"origin":null,"slices":["items_1_4","repeated"]}',
    ]


def period(number: int, ahead: list[int]) -> Period:
    m = len(ahead)
    zeros = np.zeros(m, np.int64)
    asked = Predictions(np.arange(m) + 7, zeros, zeros + 1, np.full((m, 3), -1), zeros, zeros)
    return Period(number, asked, np.array(ahead, np.int64))


PERIODS = AderEvaluation(20, 0, 0, [period(4, [0, 30]), period(5, [1, 1, 40, 40]), period(6, [])], counts(), 1.0)


def test_periods_by_hand() -> None:
    found = as_json(PERIODS)
    assert (found["recall_at_20"], found["mrr_at_20"]) == (50.0, 37.5)
    first = {"period": 4, "ranked": 2, "recall_at_20": 50.0, "mrr_at_20": 50.0}
    assert first.items() < found["periods"][0].items()
    assert found["periods"][2]["standard_error"] == {"recall_at_20": None, "mrr_at_20": None}
    assert summary(PERIODS) == "6 ranked, 3 periods: Recall@20 50.00 %  MRR@20 37.50 %"
    assert table(PERIODS)[1].split() == ["period", "4", "2", "50.00", "±", "35.36", "50.00", "±", "35.36"]
    assert table(PERIODS)[3].split() == ["period", "6", "0", "0.00", "0.00"]
    file = io.BytesIO()
    write_ranks(file, PERIODS)
    assert file.getvalue().splitlines()[1] == b'{"line":8,"user":"u","item":"b","rank":31,"period":4}'


def test_of_nothing_there_is_a_table_too() -> None:
    nothing = replace(FOUND, each=FOUND.each.since(3))
    assert as_json(nothing)["ranked"] == 0
    assert table(nothing)[1].split() == ["all", "0", "-", "-", "-", "-", "-"]


@pytest.mark.parametrize("found", [FOUND, PERIODS, replace(FOUND, each=FOUND.each.since(3))])
def test_a_picture_is_a_png(found: Evaluation | AderEvaluation) -> None:
    pytest.importorskip("matplotlib")
    file = io.BytesIO()
    plot.plot(file, found, "a title with $ and _")
    assert file.getvalue().startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize(("n", "parts"), [(0, 0), (1, 1), (399, 1), (400, 2), (10**6, 60)])
def test_a_point_is_of_many_events(n: int, parts: int) -> None:
    found = plot.parts_of(n)
    assert len(found) == parts
    assert sum(map(len, found)) == n
