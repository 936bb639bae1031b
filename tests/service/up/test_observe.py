from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from prometheus_client import generate_latest

from model_store.keys import Keys
from model_store.redis_connection import connect
from service.local import embedded_redis, free_port
from service.metrics import TrainerMetrics
from service.up.figures import Figures, Listed, Quantiles, outstanding
from service.up.observe import Observer, parse_list


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
