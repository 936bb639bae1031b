"""What Prometheus, load balancers and slow clients meet."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from service import health_server
from service.health import Health
from service.health_server import HealthServer
from service.metrics import ScorerMetrics

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


@pytest.mark.parametrize("path", ["/", "/metric", "/health//", "/metrics/x", "/../health", "//[", "*"])
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


@pytest.mark.parametrize("path", ["/health", "/health/", "/health?a=/b", "/metrics/", "http://a.balancer/health"])
def test_forms_of_a_path(path: str) -> None:
    health = Health("test")
    health.started()
    with serving(health) as server:
        assert get(server.port, path)[0] == 200


@pytest.fixture
def connection() -> Iterator[HTTPConnection]:
    health = Health("test")
    health.started()
    with serving(health) as server:
        connection = HTTPConnection(HOST, server.port, timeout=10)
        yield connection
        connection.close()


def test_a_connection_is_kept(connection: HTTPConnection) -> None:
    ports = set()
    for method, path, status in [
        ("GET", "/health", 200), ("HEAD", "/health", 200), ("GET", "/x", 404), ("HEAD", "/metrics", 200),
        ("OPTIONS", "/health", 200), ("HEAD", "/x", 404), ("GET", "/metrics", 200),
    ]:  # fmt: skip
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
        assert (answer.status, answer.version) == (status, 11)
        assert (len(body) > 0) == (method == "GET" and path != "/metrics")  # of no metrics there is nothing to tell
        assert connection.sock is not None
        ports.add(connection.sock.getsockname()[1])
    assert len(ports) == 1


def test_a_head_tells_how_long_the_body_would_be(connection: HTTPConnection) -> None:
    lengths = set()
    for method in ("GET", "HEAD"):
        connection.request(method, "/health")
        answer = connection.getresponse()
        answer.read()
        lengths.add(answer.headers["Content-Length"])
    assert len(lengths) == 1


def test_options_tell_what_may_be_asked(connection: HTTPConnection) -> None:
    connection.request("OPTIONS", "*")
    answer = connection.getresponse()
    answer.read()
    assert (answer.status, answer.headers["Allow"]) == (200, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_not_allowed_and_their_body_is_no_request(method: str, connection: HTTPConnection) -> None:
    connection.request(method, "/health", body=b"GET /health HTTP/1.1\r\n\r\n")
    answer = connection.getresponse()
    answer.read()
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    assert answer.headers["Connection"] == "close"


def test_slow_clients_neither_pile_up_nor_lock_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_server, "MOST_CONNECTIONS", 5)
    before = threading.active_count()
    health = Health("test")
    health.started()
    with serving(health) as server, ExitStack() as stack:
        for _ in range(40):
            slow = stack.enter_context(socket.create_connection((HOST, server.port), timeout=10))
            slow.sendall(b"GET /health HTTP/1.1\r\nX: ")
            assert get(server.port, "/health")[0] == 200
        deadline = time.monotonic() + 10
        while threading.active_count() > before + 1 + 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    deadline = time.monotonic() + 10
    while threading.active_count() > before:  # also of connections that were still open
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize(("listens", "asked"), [("::", "::1"), ("::", HOST), ("::1", "::1"), ("0.0.0.0", HOST)])
def test_every_kind_of_address(listens: str, asked: str) -> None:
    server = HealthServer(listens, 0, 9402, Health("test"), CollectorRegistry())
    try:
        connection = HTTPConnection(asked, server.port, timeout=10)
        connection.request("GET", "/metrics")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        server.close()


def test_a_name_that_is_none() -> None:
    with pytest.raises(OSError, match=r"cannot serve metrics at no\.such\.host\.invalid:9402: "):
        HealthServer("no.such.host.invalid", 9402, 9402, Health("test"), CollectorRegistry())
