import gzip
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumers.event_file import FileError
from service.up.figures import Figures
from service.up.options import UpOptions
from service.up.publishing import Publishing
from tests.service.processes import until
from tests.service.up.memory_publisher import MemoryPublisher

PROCESSES = ("trainer", "scorer")
MODEL = Figures(live_version=1, health={"trainer": "ok", "scorer": "starting"})
ALL_WELL = Figures(live_version=1, health={"trainer": "ok", "scorer": "ok"})
WAITING = "waiting for the first model and the scorers"


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.publisher = MemoryPublisher()
        self.told: list[str] = []
        self.made: list[Publishing] = []

    def publishing(self, options: UpOptions) -> Publishing:
        self.made.append(Publishing(options, self.publisher, Figures, math.inf, self.told.append))
        return self.made[-1]

    def of_file(self, events: bytes, state: str = WAITING) -> Publishing:
        """Such a file and one of an item, which is published; started, and in such a state."""
        items, file = self.folder / "i.jsonl", self.folder / "e.jsonl"
        items.write_text('{"item_id":"i1","title":"A lamp","category":"Light"}\n')
        file.write_bytes(events)
        publishing = self.publishing(UpOptions(demo=True, events=file, items=items, rate=1e6))
        publishing.start()
        assert until(lambda: publishing.state == state)
        return publishing


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    for publishing in world.made:
        publishing.stop()


def lines(*users: str) -> bytes:
    return "".join(f'{{"user_id":"{user}","item_id":"i1","type":"click","ts":1}}\n' for user in users).encode()


def test_what_is_published_has_a_name(world: World, tmp_path: Path) -> None:
    file = tmp_path / "e.jsonl"
    file.write_text("")
    assert world.publishing(UpOptions(demo=True)).name == "simulated shop, 300 events/s"
    assert world.publishing(UpOptions(demo=True, rate=20.0)).name == "simulated shop, 20 events/s"
    assert world.publishing(UpOptions(demo=True, events=file)).name == "e.jsonl, 500 events/s"
    assert world.publishing(UpOptions(demo=True, events=file, rate=7.0)).name == "e.jsonl, 7 events/s"
    assert (
        world.publishing(UpOptions(demo=True, events=file, speed=2.0)).name == "e.jsonl, 2 times as fast as it happened"
    )
    with pytest.raises(FileError, match="cannot read"):
        world.publishing(UpOptions(demo=True, events=tmp_path / "nothing"))


def test_the_catalogue_comes_at_once_and_the_events_when_there_are_a_model_and_scorers(world: World) -> None:
    publishing = world.of_file(lines("u1", "u2") + b"rubbish\n")
    assert [(topic, key) for topic, key, _ in world.publisher.records] == [("items", "i1")]
    assert publishing.catalogue.title("i1") == "A lamp"
    for now, figures in ((0.0, Figures()), (100.0, Figures()), (101.0, MODEL), (130.0, MODEL)):
        publishing.tend(now, figures, PROCESSES)
        assert publishing.state == WAITING
    publishing.tend(130.5, ALL_WELL, PROCESSES)
    assert until(lambda: publishing.state == "all published")
    assert [(topic, key) for topic, key, _ in world.publisher.records[1:]] == [("events", "u1"), ("events", "u2")]
    assert (publishing.published, publishing.failed, publishing.share) == (2, 1, 1.0)
    watched = publishing.spotlight.watched(0.0)
    assert watched is not None
    assert watched[1][0].item_id == "i1"
    publishing.tend(131.0, ALL_WELL, PROCESSES)
    assert publishing.rate == pytest.approx(2 / 30)  # since 101.0: of the looks five seconds ago or earlier, the last
    assert not publishing.ended_early
    assert len(world.told) == 1
    assert "e.jsonl, line 3: not_json: " in world.told[0]


def test_scorers_that_are_never_well_are_waited_for_half_a_minute(world: World) -> None:
    publishing = world.of_file(lines("u1"))
    publishing.tend(50.0, MODEL, PROCESSES)
    publishing.tend(80.0, MODEL, PROCESSES)
    assert publishing.state == WAITING
    publishing.tend(80.1, MODEL, PROCESSES)
    assert until(lambda: publishing.state == "all published")


def test_an_early_end_is_told_once(world: World) -> None:
    publishing = world.of_file(gzip.compress(lines(*(f"u{n}" for n in range(1000))))[:-20], "ended early")
    publishing.tend(0.0, ALL_WELL, PROCESSES)
    publishing.tend(0.1, ALL_WELL, PROCESSES)
    publishing.tend(0.2, ALL_WELL, PROCESSES)
    assert publishing.ended_early
    assert len(world.told) == 1
    assert re.fullmatch("the traffic ended early: .* is cut off in the middle", world.told[0])
    assert world.publisher.records == []


def test_it_can_be_stopped_before_there_is_a_model(world: World) -> None:
    publishing = world.of_file(lines("u1"))
    publishing.stop()
    assert publishing.published == 0
    publishing.stop()
    world.publishing(UpOptions(demo=True)).stop()  # one that was never started
