import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store.keys import Keys
from model_store.redis_connection import connect
from service.shop.spotlight import Action
from service.shop.traffic import Catalogue
from service.up.figures import Figures, Listed
from service.up.observe import Observer
from service.up.options import UpOptions
from service.up.publishing import Publishing
from service.up.running import Run
from service.up.servers import Server
from service.up.supervisor import Service, Supervisor
from service.up.view import ProcessRow, Shown, WatchedShopper
from service.up.viewer import Course, Viewer, process_row, process_state, watched_shopper
from tests.service.up.memory_publisher import MemoryPublisher

KAFKA = Server("Kafka", "kafka-1:9092")
REDIS = Server("Redis", "redis://:secret@127.0.0.1:1/0")


def test_the_course_has_a_point_for_each_look_that_knew_the_figure() -> None:
    course = Course()
    first = Figures(learned_rate=300.0)
    for figures in (Figures(), first, first, Figures(learned_rate=300.0, recall=0.2), Figures(recall=0.3)):
        course.note(figures)
    assert list(course.rates) == [300.0, 300.0]
    assert list(course.recalls) == [0.2, 0.3]


@pytest.mark.parametrize(
    ("health", "uptime", "state"),
    [
        (None, 0.1, "starting"),
        ("ok", 3.0, "ok"),
        ("no answer", 29.0, "starting"),
        ("no answer", 31.0, "no answer"),
        ("redis: no answer", 3.0, "redis: no answer"),
        ("ok", None, "ended, to be started again"),
    ],
)
def test_a_process_in_words(health: str | None, uptime: float | None, state: str) -> None:
    assert process_state(health, uptime) == state


def test_a_process_as_a_row() -> None:
    service = Service("scorer-1", (sys.executable, "-c", "import time; time.sleep(600)"), port=9402)
    supervisor = Supervisor([service], {}, print, clock=lambda: 100.0)
    figures = Figures(health={"scorer-1": "ok"}, versions={"scorer-1": 118})
    assert process_row(service, supervisor, figures) == ProcessRow(
        "scorer-1", "ended, to be started again", None, 9402, None, 0, 118
    )
    supervisor.start()
    try:
        assert service.child is not None
        expected = ProcessRow("scorer-1", "ok", service.child.pid, service.port, 0.0, 0, 118)
        assert process_row(service, supervisor, figures) == expected
    finally:
        supervisor.stop([service], 0.0)


def test_a_shopper_is_shown_by_titles() -> None:
    catalogue = Catalogue()
    catalogue.note("i1", "A lamp", "Light")
    did = [Action(9.0, "click", "i1"), Action(8.0, "search", None, "tent"), Action(6.0, "view", "unknown")]
    shown = [
        Shown("A lamp", "Light", "click", 1.0), Shown('"tent"', "", "search", 2.0), Shown("unknown", "", "view", 4.0),
    ]  # fmt: skip
    assert watched_shopper("u1", did, None, catalogue, 10.0) == WatchedShopper("u1", shown, None)
    listed = Listed(("i1", *(f"i{n}" for n in range(2, 60))), 118, 17)
    shopper = watched_shopper("u1", did, listed, catalogue, 10.0)
    assert (shopper.model_version, shopper.events_seen) == (118, 17)
    assert shopper.items is not None
    assert len(shopper.items) == 20
    assert shopper.items[:2] == [Shown("A lamp", "Light"), Shown("i2")]


class World:
    """A run in which nothing has been started; its Redis does not answer."""

    def __init__(self) -> None:
        self.redis = connect("redis://127.0.0.1:1/0", timeout=0.2, retries=0)
        self.supervisor = Supervisor([Service("trainer", ()), Service("scorer", ())], {}, print)
        self.observer = Observer(self.redis, Keys(), self.supervisor.endpoints)

    def run(self, until: float | None = None, publishing: Publishing | None = None) -> Run:
        return Run(1000.0, until, KAFKA, REDIS, None, self.supervisor, self.observer, publishing)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.redis.close()


def test_a_view_without_traffic(world: World) -> None:
    viewer = Viewer(world.run(until=1060.0))
    for rate in (1.0, 2.0):
        world.observer.figures = Figures(learned_rate=rate, recall=0.25)
        viewer.note()
    view = viewer.view(1002.5, ["something happened"])
    assert (view.uptime, view.remaining) == (2.5, 57.5)
    assert (view.kafka, view.redis) == ("kafka-1:9092", "redis://…@127.0.0.1:1/0")
    assert view.figures is world.observer.figures
    assert [(row.name, row.state) for row in view.processes] == [
        ("trainer", "ended, to be started again"), ("scorer", "ended, to be started again"),
    ]  # fmt: skip
    assert (view.rates, view.recalls) == ([1.0, 2.0], [0.25, 0.25])
    assert view.messages == ["something happened"]
    assert (view.traffic, view.shopper, view.published) == (None, None, 0)
    assert viewer.view(1061.0, []).remaining == 0.0
    assert Viewer(world.run()).view(1061.0, []).remaining is None


def test_what_is_wrong_with_redis_is_said_first(world: World) -> None:
    world.observer.figures = Figures(redis="no answer")
    assert Viewer(world.run()).view(1001.0, ["a", "b"]).messages == ["Redis: no answer", "a", "b"]


def test_a_view_with_traffic(world: World, tmp_path: Path) -> None:
    file = tmp_path / "e.jsonl"
    file.write_text("")
    publisher = MemoryPublisher()
    publishing = Publishing(UpOptions(demo=True, events=file), publisher, Figures, 1.0, print)
    viewer = Viewer(world.run(publishing=publishing))
    assert viewer.view(1001.0, []).shopper is None
    publisher.delivered["events"] = 40
    publisher.failures["too late"] = 2
    for now in (1000.0, 1004.0):
        publishing.tend(now, Figures(), ["trainer"])
        publisher.delivered["events"] += 80
    publishing.spotlight.note("u1", Action(1003.0, "click", "i1"))
    view = viewer.view(1004.0, [])
    publishing.stop()
    assert (view.traffic, view.traffic_state) == ("e.jsonl, 500 events/s", "publishing the catalogue")
    assert (view.published, view.published_rate, view.failed, view.share) == (200, 20.0, 2, 1.0)
    assert view.shopper == WatchedShopper("u1", [Shown("i1", "", "click", 1.0)], None)
