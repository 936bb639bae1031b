import io
from contextlib import suppress

from rich.console import Console

from service.up.display import Display, Lines, Picture, introduction
from service.up.figures import Figures
from service.up.servers import Server
from service.up.view import View
from tests.service.up.test_dashboard import ALL_KNOWN, NOTHING_KNOWN

KAFKA = Server("Kafka", "kafka-1:9092")
REDIS = Server("Redis", "redis://:secret@redis:6379/0")
ALTERNATE_SCREEN, ORDINARY_SCREEN = "\x1b[?1049h", "\x1b[?1049l"


class Terminal:
    def __init__(self, *, terminal: bool) -> None:
        self.output, self.errors = io.StringIO(), io.StringIO()
        self.consoles = [
            Console(
                file=file, width=100, height=30, force_terminal=terminal, color_system=None, soft_wrap=True,
                markup=False, highlight=False, legacy_windows=False,
            )
            for file in (self.output, self.errors)
        ]  # fmt: skip

    @property
    def said(self) -> list[str]:
        return self.errors.getvalue().splitlines()


def show(display: Display, view: View) -> None:
    display.tell("before")
    with display.open(["Kafka at home", "Redis next door"]):
        display.tell("trainer ended [by itself]")
        display.show(view)
    display.tell("after")
    display.sum_up(view, 117)


def test_lines_are_figures_and_messages_as_they_come() -> None:
    terminal = Terminal(terminal=False)
    show(Lines(*terminal.consoles), ALL_KNOWN)
    lines = terminal.output.getvalue().splitlines()
    assert lines[:2] == ["Kafka at home", "Redis next door"]
    assert lines[2].startswith("1:02:03 | published 498/s | 42% of the file | learned 301/s")
    assert lines[3].startswith("    mira-0042: add_to_cart Halden forged bread knife")
    assert lines[4] == "ran for 1:02:03"
    assert "live version 118, 117 published in this run" in lines
    assert terminal.said == ["before", "trainer ended [by itself]", "after"]


def test_lines_without_traffic_leave_the_addresses_where_they_are() -> None:
    terminal = Terminal(terminal=False)
    show(Lines(*terminal.consoles), NOTHING_KNOWN)
    assert terminal.output.getvalue().splitlines() == ["Kafka at home", "Redis next door"]
    assert terminal.said == ["before", "trainer ended [by itself]", "after"]


def test_lines_before_anybody_did_anything_have_no_shopper() -> None:
    terminal = Terminal(terminal=False)
    view = View(uptime=3.0, kafka="", redis="", figures=Figures(), traffic="a shop")
    Lines(*terminal.consoles).show(view)
    assert len(terminal.output.getvalue().splitlines()) == 1


def test_a_picture_fills_the_terminal_and_leaves_the_sum_and_what_was_told() -> None:
    terminal = Terminal(terminal=True)
    show(Picture(*terminal.consoles), ALL_KNOWN)
    before, _, rest = terminal.output.getvalue().partition(ALTERNATE_SCREEN)
    picture, _, after = rest.partition(ORDINARY_SCREEN)
    assert before == ""  # addresses are in the picture
    assert "mira-0042" in picture
    assert "127.0.0.1:41021 (embedded)" in picture
    assert "ran for 1:02:03" not in picture
    assert "ran for 1:02:03" in after
    assert terminal.said == ["before", "before", "trainer ended [by itself]", "after"]


def test_a_picture_is_gone_after_an_error_and_what_was_told_stays() -> None:
    terminal = Terminal(terminal=True)
    picture = Picture(*terminal.consoles)
    with suppress(KeyError), picture.open([]):
        picture.tell("trainer ended by itself")
        assert terminal.said == []
        raise KeyError
    assert terminal.said == ["trainer ended by itself"]
    assert ORDINARY_SCREEN in terminal.output.getvalue()


def test_the_latest_messages_are_kept() -> None:
    display = Lines(*Terminal(terminal=False).consoles)
    for n in range(300):
        display.tell(str(n))
    assert list(display.messages) == [str(n) for n in range(100, 300)]


def test_the_introduction() -> None:
    assert introduction(KAFKA, REDIS, traffic=True) == ["Kafka kafka-1:9092", "Redis redis://…@redis:6379/0"]
    lines = introduction(KAFKA, REDIS, traffic=False)
    assert lines[:2] == introduction(KAFKA, REDIS, traffic=True)
    assert "    TIDEMILL_KAFKA_BOOTSTRAP=kafka-1:9092 tidemill replay -" in lines
    assert "  TIDEMILL_REDIS_URL=redis://:secret@redis:6379/0 tidemill recs u1" in lines  # to be copied as it is
