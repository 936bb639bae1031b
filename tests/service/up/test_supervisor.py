import socket
import sys
from collections.abc import Iterator

import pytest

from service.process import UNMENDABLE
from service.up import supervisor as module
from service.up.supervisor import GaveUpError, Service, Supervisor
from tests.service.processes import all_gone, until

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
CRASHER = [sys.executable, "-c", "raise SystemExit('the disk is full')"]


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[str] = []
        self.made: list[Supervisor] = []

    def supervisor(self, *services: Service) -> Supervisor:
        self.made.append(Supervisor(services, {}, self.told.append, clock=lambda: self.now))
        return self.made[-1]


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    for supervisor in world.made:
        supervisor.stop(supervisor.services, 0.0)


def dead(service: Service) -> bool:
    return service.child is not None and service.child.poll() is not None


def test_a_dead_process_is_named_and_started_again_after_a_pause(world: World) -> None:
    service = Service("scorer-1", SLEEPER)
    supervisor = world.supervisor(service)
    supervisor.start()
    first = service.child
    assert first is not None
    assert until(lambda: first.tail() == ["up"])
    world.now = 100.0
    first.signal(9)
    assert until(lambda: dead(service))
    supervisor.tend()
    assert world.told == [
        "scorer-1 ended after 100.0 s by itself (killed by SIGKILL), starting it again in 0.5 s; the end of its log:",
        "    up",
    ]
    supervisor.tend()
    assert service.child is None
    world.now += 0.6
    supervisor.tend()
    assert service.running
    assert (service.restarts, service.quick_deaths) == (1, 0)


def test_after_five_quick_deaths_in_a_row_it_gives_up(world: World) -> None:
    service = Service("trainer", CRASHER)
    supervisor = world.supervisor(service)
    supervisor.start()
    pauses = []
    for _ in range(4):
        assert until(lambda: dead(service))
        supervisor.tend()
        assert service.restart_at is not None
        pauses.append(service.restart_at - world.now)
        world.now = service.restart_at
        supervisor.tend()
    assert until(lambda: dead(service))
    with pytest.raises(GaveUpError, match="trainer cannot be kept running: it died 5 times in a row"):
        supervisor.tend()
    assert pauses == [0.5, 1.0, 2.0, 4.0]
    assert world.told.count("    the disk is full") == 5


def test_a_long_life_forgives_earlier_deaths(world: World) -> None:
    service = Service("trainer", CRASHER)
    supervisor = world.supervisor(service)
    supervisor.start()
    for _ in range(12):
        assert until(lambda: dead(service))
        world.now += module.QUICK_SECONDS + 1
        supervisor.tend()
        world.now += 1
        supervisor.tend()
    assert service.restarts == 12


@pytest.mark.parametrize(("status", "why"), [(2, "wrong usage"), (UNMENDABLE, "no new start would mend that")])
def test_what_does_not_get_better_is_not_tried_again(status: int, why: str, world: World) -> None:
    service = Service("trainer", [sys.executable, "-c", f"raise SystemExit({status})"])
    supervisor = world.supervisor(service)
    supervisor.start()
    assert until(lambda: dead(service))
    with pytest.raises(GaveUpError, match=f"^trainer cannot be kept running: {why}$"):
        supervisor.tend()


def test_stopping_ends_them_also_when_one_has_died_before(world: World) -> None:
    services = [Service("a", SLEEPER), Service("b", CRASHER), Service("c", SLEEPER)]
    supervisor = world.supervisor(*services)
    supervisor.start()
    pids = [service.child.pid for service in services if service.child is not None]
    assert until(lambda: dead(services[1]))
    supervisor.stop(services, 5.0)
    assert all_gone(pids)
    assert [service.child for service in services] == [None, None, None]
    supervisor.tend()  # nothing is started again
    assert [service.child for service in services] == [None, None, None]


def test_a_port_that_was_taken_is_exchanged(world: World) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        service = Service("a", SLEEPER, port=taken)
        supervisor = world.supervisor(service)
        assert supervisor.endpoints() == {"a": f"http://127.0.0.1:{taken}"}
        supervisor.start()
        assert service.port != taken
        assert supervisor.endpoints() == {"a": f"http://127.0.0.1:{service.port}"}
