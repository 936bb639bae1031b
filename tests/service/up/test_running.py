import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from model_store.keys import Keys
from model_store.redis_connection import connect
from service.local import CannotStartError, embedded_kafka, embedded_redis
from service.up.figures import Figures
from service.up.observe import Observer
from service.up.options import UpOptions
from service.up.running import Run, environment, live_version, running, services
from service.up.servers import Server
from service.up.supervisor import GaveUpError, Supervisor
from tests.redis_server import RedisServer
from tests.service.processes import all_gone, answers, until

KAFKA = Server("Kafka", "kafka-1:9092")
REDIS = Server("Redis", "redis://:secret@redis:6379/0")
SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")
DEAF = (sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(600)")


def test_one_scorer_has_no_number_and_several_have() -> None:
    assert [service.name for service in services(UpOptions())] == ["trainer", "scorer"]
    made = services(UpOptions(scorers=2, trainer_command=("train",), scorer_command=("score",)))
    assert [(service.name, service.command) for service in made] == [
        ("trainer", ("train",)), ("scorer-1", ("score",)), ("scorer-2", ("score",)),
    ]  # fmt: skip
    assert len({service.port for service in made}) == 3


def test_children_are_told_where_to_work_whatever_our_own_environment_says() -> None:
    options = UpOptions(environment={"TIDEMILL_SEED": "7", "TIDEMILL_KAFKA_BOOTSTRAP": "elsewhere:9092"})
    assert environment(options, KAFKA, REDIS) == {
        "TIDEMILL_SEED": "7",
        "TIDEMILL_KAFKA_BOOTSTRAP": "kafka-1:9092",
        "TIDEMILL_REDIS_URL": "redis://:secret@redis:6379/0",
        "TIDEMILL_METRICS_HOST": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture
def run() -> Iterator[Run]:
    """One in which nothing has been started."""
    redis = connect("redis://127.0.0.1:1/0")
    supervisor = Supervisor(services(UpOptions()), {}, print)
    observer = Observer(redis, Keys(), supervisor.endpoints)
    yield Run(0.0, None, KAFKA, REDIS, 7, supervisor, observer, None)
    redis.close()


def test_versions_are_counted_from_the_one_that_was_live_before(run: Run) -> None:
    assert run.versions_published() is None
    run.observer.figures = Figures(live_version=12)
    assert run.versions_published() == 5
    assert replace(run, first_version=None).versions_published() == 12


def test_a_run_that_nobody_watches_does_not_go_on(run: Run) -> None:
    run.tend(0.0)
    run.observer.failure = ZeroDivisionError("division by zero")
    with pytest.raises(GaveUpError, match=r"cannot watch any more: ZeroDivisionError\('division by zero'\)"):
        run.tend(0.1)


def test_the_live_version_is_a_number_or_nothing() -> None:
    with embedded_redis() as url:
        redis = connect(url)
        assert live_version(redis, Keys()) is None
        redis.call("SET", Keys().live, 118)
        assert live_version(redis, Keys()) == 118
        redis.call("SET", Keys().live, "rubbish")
        assert live_version(redis, Keys()) is None
        redis.close()


def test_everything_ends_with_the_context_and_what_was_there_stays() -> None:
    told: list[str] = []
    with embedded_kafka() as bootstrap:
        options = UpOptions(bootstrap=bootstrap, scorers=2, trainer_command=SLEEPER, scorer_command=SLEEPER)
        with running(options, told.append, lambda: False) as run:
            pids = [service.child.pid for service in run.supervisor.services if service.child is not None]
            assert len(pids) == 3
            assert (run.kafka.embedded, run.redis.embedded, run.publishing, run.until) == (False, True, None, None)
            address = run.redis.address.removeprefix("redis://").removesuffix("/0")
            assert answers(address)
            run.tend(run.began)
        assert all_gone(pids)
        assert not answers(address)
        assert answers(bootstrap)
    assert told == []


def test_in_a_hurry_nobody_is_waited_for() -> None:
    told: list[str] = []
    options = UpOptions(seconds=5.0, trainer_command=DEAF, scorer_command=SLEEPER)
    with running(options, told.append, lambda: True) as run:
        assert run.until == run.began + 5.0
        trainer = run.supervisor.services[0].child
        assert trainer is not None
        assert until(lambda: trainer.tail() == ["up"])
    assert told == ["trainer did not end when asked, and was killed"]


def test_an_embedded_kafka_is_not_the_one_that_a_redis_remembers(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = Keys(model="remembered")
    with server.client() as redis:
        redis.call("SET", keys.live, 118)
    options = UpOptions(redis_url=server.url, keys=keys, trainer_command=SLEEPER, scorer_command=SLEEPER)
    with (
        pytest.raises(CannotStartError, match=r"version 118.*TIDEMILL_FRESH=1 .*TIDEMILL_MODEL_NAME .*KAFKA_BOOTSTRAP"),
        running(options, print, lambda: True),
    ):
        raise AssertionError("it has started")
    for other in (replace(options, fresh=True), replace(options, keys=Keys(model="another"))):
        with running(other, print, lambda: True) as run:
            assert run.supervisor.services[0].running
