"""The real thing for tests: a broker, a Redis and Tidemill's own commands as processes, spoken to by contract alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, TypeVar

import orjson
from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families

from model_store.redis_connection import RedisConnection, connect
from service.local import embedded_kafka, embedded_redis, free_port
from tests.patience import PATIENCE

T = TypeVar("T")
MODEL = "tidemill:{model}:"


def until(ask: Callable[[], T | None], seconds: float, what: str) -> T:
    """`ask()` until it answers something true; AssertionError where that does not come. seconds: on an idle machine."""
    end = time.monotonic() + PATIENCE * seconds
    while time.monotonic() < end:
        if answer := ask():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"not within {PATIENCE * seconds:g} s: {what}")


class World:
    """Processes started here end with `close`, whatever state they are in."""

    def __init__(self, bootstrap: str, redis_url: str, logs: Path) -> None:
        self.redis: RedisConnection = connect(redis_url)
        self.ends: dict[str, int] = {}  # partition -> offset after the last event delivered
        self._logs = logs
        self._environment = os.environ | {"TIDEMILL_KAFKA_BOOTSTRAP": bootstrap, "TIDEMILL_REDIS_URL": redis_url}
        self._bootstrap = bootstrap
        self.new_producer()
        self.processes: list[subprocess.Popen[bytes]] = []
        self._ports: dict[int, str] = {}  # process id -> port of its /health and /metrics

    def new_producer(self) -> None:
        """One that knows nothing yet of the topics there are."""
        self._producer = Producer(
            {
                "bootstrap.servers": self._bootstrap,
                "linger.ms": 2,
                "partitioner": "murmur2_random",
                "log_level": 0,
                "topic.metadata.refresh.interval.ms": 1000,
                "reconnect.backoff.max.ms": 1000,
            }
        )

    def start(self, command: str, **environment: str) -> subprocess.Popen[bytes]:
        """With a port of its own, where `health` and `metric` ask."""
        port = str(free_port())
        process = self.start_as_it_is(command, **{"TIDEMILL_METRICS_PORT": port} | environment)
        self._ports[process.pid] = port
        return process

    def start_as_it_is(self, command: str, **environment: str) -> subprocess.Popen[bytes]:
        with (self._logs / f"{command}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "service.cli", command],
                env=self._environment | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """A command that ends by itself."""
        command = [sys.executable, "-m", "service.cli", *arguments]
        return subprocess.run(command, env=self._environment | environment, capture_output=True, text=True, timeout=180)

    def health(self, process: subprocess.Popen[bytes]) -> tuple[int, dict[str, str]]:
        """What /health answers: the status and the checks; (0, {}) while nobody does."""
        try:
            status, body = self._get(process, "/health")
        except OSError:
            return 0, {}
        return status, orjson.loads(body)["checks"]

    def metric(self, process: subprocess.Popen[bytes], name: str, **labels: str) -> float | None:
        """The sum of a metric's samples that have these labels; None where there is none."""
        found = [
            sample.value
            for family in text_string_to_metric_families(self._get(process, "/metrics")[1].decode())
            for sample in family.samples
            if sample.name == f"tidemill_{name}" and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None

    def port(self, process: subprocess.Popen[bytes]) -> str:
        """Of its /health and /metrics."""
        return self._ports[process.pid]

    def _get(self, process: subprocess.Popen[bytes], path: str) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", int(self._ports[process.pid]), timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL, with its feeder left to notice by itself."""
        process.send_signal(signal.SIGKILL)
        process.wait()

    def log(self, command: str) -> str:
        return (self._logs / f"{command}.log").read_text()

    def send(self, event: Mapping[str, Any] | bytes | None, *, topic: str = "events", key: str | None = None) -> None:
        value = event if event is None or isinstance(event, bytes) else orjson.dumps(event)
        if key is None and isinstance(event, Mapping):
            key = event["user_id"] if topic == "events" else event["item_id"]

        def delivered(error: Any, message: Any) -> None:
            assert error is None, error
            if topic == "events":
                partition = str(message.partition())
                self.ends[partition] = max(self.ends.get(partition, 0), message.offset() + 1)

        self._producer.produce(topic, value, key=key, on_delivery=delivered)
        self._producer.poll(0)

    def flush(self) -> None:
        assert self._producer.flush(30) == 0

    def recs(self, user: str) -> dict[str, Any] | None:
        raw = self.redis.call("GET", f"tidemill:recs:{user}")
        return None if raw is None else orjson.loads(raw)

    def items_of(self, user: str) -> list[str]:
        return [item["item_id"] for item in (self.recs(user) or {"items": []})["items"]]

    def live(self) -> dict[str, Any] | None:
        version = self.redis.call("GET", MODEL + "live")
        raw = None if version is None else self.redis.call("GET", f"{MODEL}manifest:{int(version)}")
        return None if raw is None else orjson.loads(raw)

    def live_events(self) -> int:
        """How many events the live version has learned from."""
        return int((self.live() or {"events_trained": 0})["events_trained"])

    def learned_all(self) -> dict[str, Any] | None:
        """The live manifest, once it has learned from everything sent."""
        live = self.live()
        through = {} if live is None else live["trained_through"].get("events", {})
        return live if all(through.get(p, 0) >= end for p, end in self.ends.items()) else None

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._producer.flush(5)
        self.redis.close()


@contextmanager
def embedded_world(logs: Path) -> Iterator[World]:
    with embedded_kafka() as bootstrap, embedded_redis() as url:
        world = World(bootstrap, url, logs)
        try:
            yield world
        finally:
            world.close()
