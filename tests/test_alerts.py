"""Which alerts fire, by `promtool test rules`, on what processes really export in a situation."""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.health import Health
from service.metrics import ConsumerMetrics, ScorerMetrics, TrainerMetrics

ALERTS = Path(__file__).parents[1] / "deploy" / "alerts.yml"
MINUTES = 20
EVERY_S = 15


@dataclass
class Process:
    """One that answers, and how much what it exports grows in a second: by name, 0 for what is not named."""

    job: str
    instance: str
    metrics: ConsumerMetrics
    grows: Mapping[str, float] = field(default_factory=dict)

    def series(self) -> list[dict[str, str]]:
        scraped = {"job": self.job, "instance": self.instance}
        found = [("up", scraped, 1.0)]
        for family in self.metrics.registry.collect():
            found += [(each.name, {**each.labels, **scraped}, each.value) for each in family.samples]
        return [
            {
                "series": name + "{" + ", ".join(f'{label}="{value}"' for label, value in labels.items()) + "}",
                "values": f"{start}+{self.grows.get(name, 0.0) * EVERY_S}x{MINUTES * 60 // EVERY_S}",
            }
            for name, labels, start in found
        ]


EVENTS = {"tidemill_events_consumed_total": 100.0}
STUCK = {"tidemill_model_age_seconds": 1.0}


def standby() -> Process:
    """As `service/training/main.py` leaves it until it has the lease."""
    metrics = TrainerMetrics()
    metrics.leads.set(0)
    health = Health("trainer", metrics.health_check)
    health.set("kafka")
    health.set("lease", "waiting for the lease: another trainer may hold it")
    return Process("tidemill-trainer", "standby:9401", metrics)


def leader(
    grows: Mapping[str, float] | None = None, setting: Callable[[TrainerMetrics], None] = lambda _: None
) -> Process:
    """One that learns and publishes, but for what `setting` changes."""
    metrics = TrainerMetrics()
    metrics.leads.set(1)
    metrics.model_version.set(7)
    metrics.model_age.set(0.2)
    metrics.gate_open.set(1)
    metrics.lag_seconds.set(0)
    metrics.events_consumed.labels("click").inc()
    health = Health("trainer", metrics.health_check)
    for check in ("kafka", "lease", "redis", "gate"):
        health.set(check)
    setting(metrics)
    return Process("tidemill-trainer", "leader:9401", metrics, {**EVENTS, **(grows or {})})


def scorer(number: int, *, weights: bool = True, grows: Mapping[str, float] | None = None) -> Process:
    metrics = ScorerMetrics()
    metrics.events_consumed.labels("click").inc()
    if weights:
        metrics.model_version.set(7)
        metrics.model_age.set(0.5)
    return Process("tidemill-scorer", f"scorer-{number}:9402", metrics, {**EVENTS, **(grows or {})})


def gate_shut(metrics: TrainerMetrics) -> None:
    metrics.gate_open.set(0)


def lease_not_renewed(metrics: TrainerMetrics) -> None:
    Health("trainer", metrics.health_check).set("lease", "not renewed: Redis: away")


def behind(metrics: TrainerMetrics) -> None:
    metrics.lag_seconds.set(100)


SITUATIONS: dict[str, tuple[Sequence[Process], dict[str, int]]] = {
    "all is well, with a standby": ((leader(), standby(), scorer(1), scorer(2)), {}),
    "all is well, with a trainer that has just begun": ((leader(), scorer(1)), {}),
    "nothing is published, with a standby": (
        (leader(STUCK), standby(), scorer(1, grows=STUCK)),
        {"ModelStale": 1},
    ),
    "nothing is published, and a scorer has no weights": (
        (leader(STUCK), scorer(1, grows=STUCK), scorer(2, weights=False)),
        {"ModelStale": 1},
    ),
    "a scorer has no weights yet": ((leader(), scorer(1), scorer(2, weights=False)), {}),
    "a scorer hangs on an old version": (
        (leader(), scorer(1), scorer(2, grows=STUCK)),
        {"ScorersOnDifferentVersions": 1},
    ),
    "the gate is shut, with a standby": ((leader(setting=gate_shut), standby(), scorer(1)), {"VersionsHeldBack": 1}),
    "the leader is behind, with a standby": ((leader(setting=behind), standby(), scorer(1)), {"TrainerBehind": 1}),
    "the leader cannot renew its lease, with a standby": (
        (leader(setting=lease_not_renewed), standby(), scorer(1)),
        {"NeighbourAway": 1},
    ),
    "nobody leads": ((standby(), scorer(1)), {"NoLeader": 1}),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_what_fires(situation: str, tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (it comes with Prometheus)")
    processes, expected = SITUATIONS[situation]
    firing = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": f"{MINUTES}m",
        "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": n} for name, n in expected.items()],
    }
    case = {
        "name": situation,
        "interval": f"{EVERY_S}s",
        "input_series": [series for process in processes for series in process.series()],
        "promql_expr_test": [firing],
    }
    rules = {"rule_files": [str(ALERTS)], "evaluation_interval": f"{EVERY_S}s", "tests": [case]}
    (tmp_path / "case.yml").write_text(json.dumps(rules))
    done = subprocess.run(["promtool", "test", "rules", "case.yml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
