"""Asking a process for /metrics and /health, and understanding the answers."""

import math
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from prometheus_client.parser import text_string_to_metric_families

_HTTP_TIMEOUT = 1.0  # seconds


Scrape = Mapping[str, list[tuple[Mapping[str, str], float]]]
"""Sample name without the prefix `tidemill_` -> (labels, value) of each."""


def parse_metrics(text: str) -> Scrape:
    """What /metrics says. Text that is no exposition gives nothing."""
    samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name.removeprefix("tidemill_"), []).append((sample.labels, sample.value))
    except ValueError:
        return {}
    return samples


def buckets_of(scrape: Scrape, stage: str) -> dict[float, float]:
    """The buckets of event_to_recommendation_seconds for a stage."""
    found = scrape.get("event_to_recommendation_seconds_bucket", [])
    return {float(labels["le"]): value for labels, value in found if labels.get("stage") == stage and "le" in labels}


def only(scrape: Scrape, name: str) -> float | None:
    """The value of a metric without labels; None when absent or not a number."""
    values = [value for _, value in scrape.get(name, [])]
    return values[0] if values and not math.isnan(values[0]) else None


def total(scrapes: Iterable[Scrape], name: str, **labels: str) -> float | None:
    """The sum of a metric over processes and labels; None when nobody has it."""
    values = [
        value
        for scrape in scrapes
        for has, value in scrape.get(name, [])
        if all(has.get(label) == wanted for label, wanted in labels.items()) and not math.isnan(value)
    ]
    return sum(values) if values else None


def fetch(url: str) -> tuple[int, bytes] | None:
    """Status and body; None where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=_HTTP_TIMEOUT) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except (OSError, ValueError):
        return None


def health_of(answer: tuple[int, bytes] | None) -> str:
    """One word or line from what /health answered."""
    if answer is None:
        return "no answer"
    status, body = answer
    if status == 200:
        return "ok"
    try:
        report: Any = orjson.loads(body)
        wrong = [f"{name}: {state}" for name, state in report.get("checks", {}).items() if state != "ok"]
        return "; ".join(wrong) or str(report.get("status", status))
    except (orjson.JSONDecodeError, AttributeError):
        return f"status {status}"
