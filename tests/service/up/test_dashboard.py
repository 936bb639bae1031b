import io

import pytest
from rich.console import Console

from service.up.dashboard import (
    clock,
    line,
    render,
    seconds,
    shopper_line,
    sparkline,
    summary,
)
from service.up.figures import Figures, Quantiles
from service.up.view import ProcessRow, Shown, View, WatchedShopper

NOTHING_KNOWN = View(uptime=3.0, kafka="127.0.0.1:1", redis="redis://127.0.0.1:2/0", figures=Figures())
ALL_KNOWN = View(
    uptime=3723.0,
    kafka="127.0.0.1:41021 (embedded)",
    redis="redis://127.0.0.1:33333/0 (embedded)",
    figures=Figures(
        live_version=118, version_age=0.41, events_learned=12_345, learned_rate=301.4,
        history=Quantiles(0.0123, 0.0401), learned=Quantiles(0.31, 0.89), recall=0.2134, ndcg=0.1012, lag=3,
        scorer_lag=1, rejected=0,
    ),
    processes=[
        ProcessRow("trainer", "ok", 4711, 39849, 3700.0, 0, 118),
        ProcessRow("scorer-1", "ended, to be started again", None, 39850, None, 2, None),
    ],
    traffic="events.jsonl.gz, 500 events/s", traffic_state="publishing", published=12_400, published_rate=498.0,
    share=0.42, rates=[1.0, 5.0, 3.0], recalls=[0.1, 0.2],
    shopper=WatchedShopper(
        "mira-0042",
        [Shown("Halden forged bread knife", "Kitchen", "add_to_cart", 2.0), Shown('"tent"', "", "search", 5.0)],
        [Shown("Vireo [bold]oak[/] laptop stand", "Computing"), Shown("Løve walnut knife block", "Kitchen")],
        118, 17,
    ),
    messages=["scorer-1 ended after 9.8 s by itself (exit status 1)", "    first", "    last words"],
    remaining=60.0,
)  # fmt: skip


def drawn(view: View, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(render(view))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("size", [(100, 30), (80, 24), (160, 50), (40, 10)])
@pytest.mark.parametrize("view", [NOTHING_KNOWN, ALL_KNOWN], ids=["nothing known", "all known"])
def test_the_picture_keeps_to_the_terminal(view: View, size: tuple[int, int]) -> None:
    lines = drawn(view, *size)
    assert len(lines) == size[1]
    assert max(len(text) for text in lines) <= size[0]


def test_the_picture_has_every_figure_at_100_by_30() -> None:
    text = "\n".join(drawn(ALL_KNOWN, 100, 30))
    for figure in (
        "127.0.0.1:41021 (embedded)", "redis://127.0.0.1:33333/0", "up 1:02:03", "1:00 left", "42%", "498/s", "301/s",
        "12,345", "118", "0.41 s", "0.213", "0.101", "12 ms", "40 ms", "0.31 s", "0.89 s", "4711", ":39849",
        "mira-0042", "to cart",
        "Halden forged bread knife", "Løve walnut knife block", "Vireo [bold]oak[/] laptop stand",
        "ended, to be started again", "last words",
    ):  # fmt: skip
        assert figure in text, figure


def test_what_is_not_known_is_a_dash() -> None:
    assert "learned -, - in all | version -, age - | history p50 - p99 - | learned p50 - p99 - | recall@20 -" in line(
        NOTHING_KNOWN
    )
    assert shopper_line(NOTHING_KNOWN) is None


def test_the_same_figures_as_a_line() -> None:
    assert line(ALL_KNOWN) == (
        "1:02:03 | published 498/s | 42% of the file | learned 301/s, 12,345 in all | version 118, age 0.41 s | "
        "history p50 12 ms p99 40 ms | learned p50 0.31 s p99 0.89 s | recall@20 0.213 | NDCG@20 0.101 | lag 3 | "
        "trainer ok, scorer-1 ended, to be started again"
    )
    assert shopper_line(ALL_KNOWN) == (
        '    mira-0042: add_to_cart Halden forged bread knife, search "tent" => '
        "Vireo [bold]oak[/] laptop stand; Løve walnut knife block"
    )


def test_the_summary() -> None:
    text = "\n".join(summary(ALL_KNOWN, 117))
    assert "published 12,400 events (events.jsonl.gz, 500 events/s)" in text
    assert "live version 118, 117 published in this run" in text
    assert "processes started again: 2" in text
    assert "recall@20 -" in "\n".join(summary(NOTHING_KNOWN, None))


def test_durations() -> None:
    assert [seconds(value) for value in (None, 0.0042, 0.0996, 0.5, 1.26, 59.6, 3723)] == [
        "-", "4 ms", "0.10 s", "0.50 s", "1.3 s", "60 s", "1:02:03",
    ]  # fmt: skip
    assert clock(59.9) == "0:59"


def test_sparklines() -> None:
    assert sparkline([], 5) == sparkline([1.0], 5) == ""
    assert sparkline([0.0, 7.0, float("nan"), 3.5], 5) == "▁█▄"
    assert sparkline([2.0, 2.0], 5) == "▁▁"
    assert len(sparkline(list(range(100)), 7)) == 7
