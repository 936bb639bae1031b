import math
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from prometheus_client import generate_latest

from model_store.keys import Keys
from model_store.redis_connection import connect
from service.local import embedded_redis, free_port
from service.metrics import ScorerMetrics, TrainerMetrics
from service.up.observe import (
    Figures,
    Listed,
    Observer,
    Quantiles,
    Rate,
    RecentHistogram,
    buckets_of,
    health_of,
    only,
    outstanding,
    parse_list,
    parse_metrics,
    quantile,
    total,
)


def test_a_rate_is_taken_over_the_window() -> None:
    rate = Rate(window=5.0)
    assert rate.per_second() is None
    for second in range(20):
        rate.note(second, 100 * second if second < 10 else 1000 + 10 * (second - 10))
    assert rate.per_second() == pytest.approx(10)


def test_a_rate_begins_anew_with_its_counter() -> None:
    rate = Rate()
    rate.note(0, 1000)
    rate.note(1, 2000)
    rate.note(2, 5)
    assert rate.per_second() is None
    rate.note(3, 25)
    assert rate.per_second() == 20


def test_quantiles_as_prometheus_takes_them() -> None:
    buckets = {0.1: 50.0, 0.2: 90.0, 0.5: 100.0, math.inf: 100.0}
    assert quantile(buckets, 0.5) == pytest.approx(0.1)
    assert quantile(buckets, 0.7) == pytest.approx(0.15)
    assert quantile(buckets, 0.99) == pytest.approx(0.47)
    assert quantile({0.1: 0.0, math.inf: 0.0}, 0.5) is None
    assert quantile({}, 0.5) is None
    assert quantile({0.1: 1.0, 0.5: 1.0, math.inf: 10.0}, 0.99) == 0.5  # more cannot be said than "above it"


def test_a_recent_histogram_forgets_and_survives_restarts() -> None:
    recent = RecentHistogram(window=30.0)
    assert recent.quantiles() == Quantiles(None, None)
    recent.note(0, "a", {0.1: 100, 1.0: 100, math.inf: 100})
    recent.note(1, "b", {0.1: 0, 1.0: 100, math.inf: 100})
    assert recent.quantiles().p50 == pytest.approx(0.1)  # both processes count
    recent.note(60, "a", {0.1: 100, 1.0: 110, math.inf: 110})
    assert (recent.quantiles().p50 or 0) > 0.5  # the fast hundred are long ago
    recent.note(61, "a", {0.1: 4, 1.0: 4, math.inf: 4})  # it began anew: these four are new
    recent.note(92, "a", {0.1: 4, 1.0: 4, math.inf: 4})
    assert recent.quantiles() == Quantiles(None, None)


def test_metrics_as_our_processes_write_them() -> None:
    metrics = ScorerMetrics()
    metrics.freshness.labels("history").observe(0.004)
    metrics.model_version.set(7)
    metrics.lag_events.labels("events", "0").set(3)
    metrics.lag_events.labels("events", "1").set(4)
    metrics.lag_events.labels("items", "0").set(100)
    scrape = parse_metrics(generate_latest(metrics.registry).decode())
    assert only(scrape, "model_version") == 7
    assert total([scrape, scrape], "consumer_lag_events", topic="events") == 14
    assert buckets_of(scrape, "history")[0.005] == 1
    assert buckets_of(scrape, "learned") == {}
    assert only(scrape, "prequential_recall_at_20") is None
    assert total([scrape], "no_such_thing") is None


@pytest.mark.parametrize("text", ["", "<html>", "{}", "tidemill_model_version NaN", "\x00\x00"])
def test_what_is_no_exposition_gives_no_figures(text: str) -> None:
    assert only(parse_metrics(text), "model_version") is None


def test_health_in_a_word() -> None:
    assert health_of(None) == "no answer"
    assert health_of((200, b"anything")) == "ok"
    assert health_of((503, b'{"status": "starting", "checks": {"redis": "ok"}}')) == "starting"
    assert health_of((503, b'{"status": "degraded", "checks": {"redis": "no answer"}}')) == "redis: no answer"
    assert health_of((500, b"<html>")) == "status 500"
    assert health_of((500, b"[]")) == "status 500"


def test_a_list_as_the_contract_has_it() -> None:
    raw = b'{"model_version": 3, "events_seen": 2, "items": [{"item_id": "a", "score": 1.0}, {"item_id": "b"}]}'
    assert parse_list(raw) == Listed(("a", "b"), 3, 2)
    for wrong in (None, b"", b"[]", b"{}", b'{"items": [1]}', b'{"items": null}'):
        assert parse_list(wrong) is None


def test_outstanding_counts_what_is_not_learned_from() -> None:
    assert outstanding({0: 100, 1: 50}, {"0": 90}) == 60
    assert outstanding({0: 100}, {"0": 1000}) == 0


@pytest.fixture
def trainer_url() -> Iterator[str]:
    metrics = TrainerMetrics()
    metrics.recall.set(0.25)
    metrics.lag_events.labels("events", "0").set(3)
    metrics.events_rejected.labels("bad_json").inc(2)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 503)
            self.end_headers()
            self.wfile.write(
                generate_latest(metrics.registry) if self.path == "/metrics" else b'{"status": "starting"}'
            )

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_one_look_at_everything(trainer_url: str) -> None:
    with embedded_redis() as url:
        redis = connect(url, timeout=1.0, retries=0)
        endpoints = {"trainer": trainer_url, "scorer": f"http://127.0.0.1:{free_port()}"}
        observer = Observer(redis, Keys(), lambda: endpoints)
        figures = observer.look()
        assert (figures.live_version, figures.events_learned, figures.history) == (None, None, Quantiles(None, None))
        assert (figures.recall, figures.lag, figures.rejected, figures.scorer_lag) == (0.25, 3, 2, None)
        assert figures.health == {"trainer": "starting", "scorer": "no answer"}

        redis.call("SET", Keys().live, 5)
        redis.call("SET", Keys().manifest(5), b'{"events_trained": 9, "created_at": "2026-01-05T10:00:00.123Z"}')
        figures = observer.look()
        assert (figures.live_version, figures.events_learned, figures.ndcg) == (5, 9, None)
        assert figures.version_age is not None
        assert observer.list_of("nobody") is None

        for damaged in (b"{broken", b"[]", b'{"events_trained": "many", "created_at": 3, "trained_through": []}'):
            redis.call("SET", Keys().manifest(5), damaged)
            assert observer.look().events_learned is None
        redis.close()
    figures = observer.look()
    assert figures.redis is not None  # it says that Redis is gone,
    assert figures.recall == 0.25  # and what the others say all the same
    assert observer.list_of("u1") is None
    redis.close()


def test_the_observer_runs_and_stops() -> None:
    redis = connect(f"redis://127.0.0.1:{free_port()}/0", timeout=0.2, retries=0)
    observer = Observer(redis, Keys(), dict, every=0.01)
    assert observer.figures == Figures()
    observer.start()
    observer.stop()
    assert observer.failure is None
    redis.close()
