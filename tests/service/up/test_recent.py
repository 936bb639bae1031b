import math

import pytest

from service.up.figures import Quantiles
from service.up.recent import Rate, RecentHistogram, quantile


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
