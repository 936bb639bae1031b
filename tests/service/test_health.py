import logging

import pytest
from prometheus_client import CollectorRegistry

from service.health import OK, Health
from service.metrics import ScorerMetrics, TrainerMetrics, _Metrics


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
