import pytest
from prometheus_client import generate_latest

from service.metrics import ScorerMetrics
from service.up.scrape import buckets_of, health_of, only, parse_metrics, total


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
