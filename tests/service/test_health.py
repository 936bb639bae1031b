import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from service.health import OK, Health, HealthServer
from service.metrics import ScorerMetrics, TrainerMetrics, _Metrics

HOST = "127.0.0.1"


@contextmanager
def serving(
    health: Health | None = None, metrics: CollectorRegistry | None = None, port: int | None = 0, first: int = 9402
) -> Iterator[HealthServer]:
    server = HealthServer(HOST, port, first, health or Health("test"), metrics or CollectorRegistry())
    try:
        yield server
    finally:
        server.close()


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        holder.listen()
        yield holder.getsockname()[1]


def get(port: int, path: str) -> tuple[int, str, bytes]:
    connection = HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read()
    finally:
        connection.close()


def test_a_process_is_starting_then_ok_then_degraded_then_ok() -> None:
    health = Health("trainer")
    assert health.report() == (False, {"status": "starting", "process": "trainer", "checks": {}})
    health.set("redis")
    assert health.report()[0] is False
    health.started()
    assert health.report() == (True, {"status": "ok", "process": "trainer", "checks": {"redis": OK}})
    health.set("kafka", "no broker answers")
    health.fact("model_version", 7)
    assert health.report() == (
        False,
        {
            "status": "degraded",
            "process": "trainer",
            "checks": {"redis": "ok", "kafka": "no broker answers"},
            "model_version": 7,
        },
    )
    health.set("kafka")
    assert health.report()[0] is True


def test_changes_of_a_check_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "service.health")
    health = Health("trainer")
    for state in (OK, OK, "gone", "gone", OK, OK):
        health.set("redis", state)
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", "redis: gone"),
        ("INFO", "redis: ok"),
    ]


def test_each_check_is_a_metric() -> None:
    metrics = TrainerMetrics()
    health = Health("trainer", metrics.health_check)

    def shown() -> dict[str, float]:
        (family,) = metrics.health_check.collect()
        return {sample.labels["check"]: sample.value for sample in family.samples}

    health.set("redis", "gone")
    health.set("kafka")
    assert shown() == {"redis": 0.0, "kafka": 1.0}
    health.set("redis")
    health.set("kafka", "no broker answers")
    assert shown() == {"redis": 1.0, "kafka": 0.0}


def test_health_answers_503_until_all_is_well() -> None:
    health = Health("scorer")
    with serving(health) as server:
        status, kind, body = get(server.port, "/health")
        assert (status, kind) == (503, "application/json")
        assert json.loads(body) == {"status": "starting", "process": "scorer", "checks": {}}
        health.started()
        status, _, body = get(server.port, "/health?verbose=1")
        assert (status, json.loads(body)["status"]) == (200, "ok")
        health.set("model", "version 12 is damaged")
        status, _, body = get(server.port, "/health")
        assert (status, json.loads(body)["checks"]) == (503, {"model": "version 12 is damaged"})


def test_a_fact_that_json_does_not_know_is_shown_all_the_same() -> None:
    health = Health("scorer")
    health.started()
    health.fact("where", {"a": HealthServer})
    with serving(health) as server:
        status, _, body = get(server.port, "/health")
    assert status == 200
    assert "HealthServer" in json.loads(body)["where"]["a"]


def test_metrics_are_what_the_registry_holds() -> None:
    metrics = ScorerMetrics()
    metrics.events_consumed.labels("view").inc(3)
    metrics.lag_events.labels("events", "0").set(5)
    metrics.freshness.labels("history").observe(0.012)
    with serving(metrics=metrics.registry) as server:
        status, kind, body = get(server.port, "/metrics")
    assert status == 200
    assert kind.startswith("text/plain")
    samples = {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(body.decode())
        for s in family.samples
    }
    assert samples["tidemill_events_consumed_total", (("type", "view"),)] == 3
    assert samples["tidemill_consumer_lag_events", (("partition", "0"), ("topic", "events"))] == 5
    assert samples["tidemill_event_to_recommendation_seconds_count", (("stage", "history"),)] == 1


@pytest.mark.parametrize("path", ["/", "/metric", "/health/", "/metrics/x", "/../health"])
def test_every_other_path_is_not_found(path: str) -> None:
    with serving() as server:
        assert get(server.port, path) == (404, "text/plain", b"/metrics or /health\n")


def test_a_taken_port_is_an_error_that_names_it() -> None:
    with (
        taken_port() as port,
        pytest.raises(OSError, match=rf"cannot serve metrics at {HOST}:{port}: Address already in use"),
        serving(port=port),
    ):
        pass


def test_without_a_port_the_first_free_one_is_taken() -> None:
    with taken_port() as port, serving(port=None, first=port) as server:
        assert server.port > port
        assert get(server.port, "/metrics")[0] == 200
        with serving(port=None, first=server.port) as another:
            assert another.port > server.port


def test_a_search_for_a_free_port_ends_with_the_last_port() -> None:
    with socket.socket() as holder:
        try:
            holder.bind((HOST, 65535))
        except OSError:
            pytest.skip("port 65535 is in use")
        holder.listen()
        with pytest.raises(OSError, match=r"no free port for metrics from 65535|Address already in use"):
            HealthServer(HOST, None, 65535, Health("test"), CollectorRegistry())


def test_a_wrong_address_is_not_called_a_lack_of_ports() -> None:
    with pytest.raises(OSError, match=r"cannot serve metrics at 203\.0\.113\.1:9402: "):
        HealthServer("203.0.113.1", None, 9402, Health("test"), CollectorRegistry())


def test_a_closed_server_frees_its_port() -> None:
    with serving() as server:
        port = server.port
        get(port, "/health")
    with serving(port=port) as again:
        assert again.port == port
    again.close()  # a second time does no harm


def test_a_client_that_goes_away_leaves_no_trace(capfd: pytest.CaptureFixture[str]) -> None:
    class Awkward:
        def __str__(self) -> str:
            raise RuntimeError("cannot be shown")

    health = Health("test")
    with serving(health) as server:
        health.fact("awkward", Awkward())
        with socket.create_connection((HOST, server.port), timeout=10) as client:
            client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            assert client.recv(100) == b""  # its request failed
        health.fact("awkward", None)
        deadline = time.monotonic() + 10
        while get(server.port, "/health")[0] != 503:
            assert time.monotonic() < deadline
    assert capfd.readouterr().err == ""


PUBLIC = {
    "events_consumed": ("type",),
    "events_rejected": ("reason",),
    "events_duplicate": (),
    "events_misrouted": (),
    "consumer_lag_events": ("topic", "partition"),
    "consumer_lag_seconds": (),
    "model_version": (),
    "model_age_seconds": (),
}
TRAINER = {
    "events_trained": (),
    "train_step_seconds": (),
    "train_loss": (),
    "prequential_recall_at_20": (),
    "prequential_ndcg_at_20": (),
    "publish_seconds": ("kind",),
    "publish_bytes": ("kind",),
}
SCORER = {
    "reload_seconds": (),
    "recommendations_written": (),
    "event_to_recommendation_seconds": ("stage",),
}


@pytest.mark.parametrize(("metrics", "names"), [(TrainerMetrics, PUBLIC | TRAINER), (ScorerMetrics, PUBLIC | SCORER)])
def test_the_public_metrics_are_there_with_their_labels(
    metrics: type[_Metrics], names: dict[str, tuple[str, ...]]
) -> None:
    made = metrics()
    found = {
        value._name: tuple(value._labelnames)
        for value in vars(made).values()
        if not isinstance(value, CollectorRegistry)
    }
    for name, labels in names.items():
        assert found[f"tidemill_{name}"] == labels
    assert metrics().registry is not made.registry
