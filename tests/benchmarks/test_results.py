from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.page import BEGIN, END, write_page
from benchmarks.quality.ranking import Figures
from benchmarks.quality.results import Result, merged, read_results, write_results
from benchmarks.quality.tidemill import CommandError, evaluate, result_of
from tests.benchmarks.worlds import random_stream

SHOP = random_stream(100)

RESULT = Result(
    stream="shop",
    events=1_000,
    rival="item_knn",
    title="item-KNN",
    figures=Figures.of(np.array([0, 3, 40])),
    learned_per_second=12_345.0,
    ms_a_list=0.005,
    seconds=2.0,
    settings={"hide_seen": True, "window": 3},
    trials=5,
    search_seconds=4.0,
    versions={"numba": "1.2"},
)


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "kept" / "results.json"
    assert read_results(file) == []
    write_results(file, [RESULT])
    assert read_results(file) == [RESULT]


def test_a_new_result_takes_the_place_of_the_old_and_others_stay() -> None:
    other, shorter = replace(RESULT, rival="vs_knn"), replace(RESULT, events=10)
    newer = replace(RESULT, seconds=9.0)
    assert merged([RESULT, other, shorter], [newer]) == [newer, other, shorter]


def test_the_page_has_a_row_a_rival_in_order_and_keeps_what_is_around_it(tmp_path: Path) -> None:
    page = tmp_path / "quality.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_page(
        page,
        [RESULT, replace(RESULT, rival="tidemill", title="**Tidemill**", ms_a_list=None)],
        ["tidemill", "item_knn"],
    )
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    rows = [line for line in text.splitlines() if line.startswith(("| item", "| **"))]
    assert rows == [
        "| **Tidemill** | .6667 ± .2722 | .4167 ± .2453 | .4769 ± .2365 | 3 | 12,000 (ranking too) | - |",
        "| item-KNN | .6667 ± .2722 | .4167 ± .2453 | .4769 ± .2365 | 3 | 12,000 | < .01 |",
        "| item-KNN | hide_seen yes, window 3 | 5 | 4 | 2 | numba 1.2 |",
    ]


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "quality.md"
    page.write_text("mine")
    with pytest.raises(ValueError, match="has not one"):
        write_page(page, [RESULT], [])
    assert page.read_text() == "mine"


def test_tidemills_json_is_a_result_also_without_standard_errors() -> None:
    found = {"events": 100, "ranked": 64, "hr_at_20": 0.5, "mrr_at_20": 0.2, "ndcg_at_20": 0.3, "seconds": 4.0}
    plain = result_of(found, SHOP, 5.0)
    assert plain.figures.hit_rate.error == pytest.approx(0.5 / 8)
    assert plain.figures.mrr.error is None
    assert plain.learned_per_second == 25
    assert plain.place == (SHOP.name, 100, "tidemill")
    known = result_of(found | {"standard_error": {"hr_at_20": 0.06, "mrr_at_20": 0.01}}, SHOP, 5.0)
    assert (known.figures.hit_rate.error, known.figures.mrr.error, known.figures.ndcg.error) == (0.06, 0.01, None)


def test_what_the_command_says_is_wrong_is_passed_on(tmp_path: Path) -> None:
    file = tmp_path / "shop.jsonl"
    file.write_text("no event\n" * 3)
    with pytest.raises(CommandError, match=r"tidemill evaluate ended with \d: tidemill: "):
        evaluate(file, SHOP, 2)
