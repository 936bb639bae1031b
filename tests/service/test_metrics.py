"""What is exported, and what is not as long as nobody has measured it."""

import pytest
from prometheus_client import generate_latest

from service.metrics import ConsumerMetrics, Level, ScorerMetrics, TrainerMetrics


def levels(metrics: ConsumerMetrics) -> dict[str, Level]:
    return {name: each for name, each in vars(metrics).items() if isinstance(each, Level)}


def gauges_in(metrics: ConsumerMetrics) -> set[str]:
    """Names of all gauges that have a sample."""
    families = metrics.registry.collect()
    return {sample.name for family in families if family.type == "gauge" for sample in family.samples}


@pytest.mark.parametrize("kind", [TrainerMetrics, ScorerMetrics])
def test_no_gauge_is_there_before_it_has_a_value(kind: type[ConsumerMetrics]) -> None:
    metrics = kind()
    assert len(levels(metrics)) > 4
    assert gauges_in(metrics) == set()


@pytest.mark.parametrize("kind", [TrainerMetrics, ScorerMetrics])
def test_each_is_there_from_its_first_value_on_also_where_that_is_0(kind: type[ConsumerMetrics]) -> None:
    metrics = kind()
    for level in levels(metrics).values():
        level.set(0)
    assert gauges_in(metrics) == {family.name for level in levels(metrics).values() for family in level.describe()}


def test_a_value_can_be_taken_back() -> None:
    metrics = TrainerMetrics()
    metrics.recall.show(0.25)
    assert b"tidemill_prequential_recall_at_20 0.25" in generate_latest(metrics.registry)
    metrics.recall.show(None)
    assert gauges_in(metrics) == set()
    metrics.recall.show(0.5)
    assert gauges_in(metrics) == {"tidemill_prequential_recall_at_20"}
