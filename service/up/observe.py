"""What a running Tidemill says of itself through its public contract: Redis keys, and each process's /metrics, /health.

A figure that is not there is None, never a guess.
"""

import math
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from prometheus_client.parser import text_string_to_metric_families

from consumers.times import now_ms, parse_iso
from model_store.errors import StoreUnavailable
from model_store.keys import Keys
from model_store.redis_connection import RedisConnection

RATE_WINDOW = 5.0  # seconds over which events per second are taken
FRESHNESS_WINDOW = 30.0  # seconds over which quantiles are taken
_HTTP_TIMEOUT = 1.0


class Listed(NamedTuple):
    """One user's list as it stands in Redis."""

    item_ids: tuple[str, ...]
    model_version: int | None
    events_seen: int | None


class Quantiles(NamedTuple):
    p50: float | None  # seconds
    p99: float | None


NOTHING = Quantiles(None, None)


@dataclass(frozen=True, slots=True)
class Figures:
    """One look at the whole. Rates are per second, ages and durations in seconds."""

    live_version: int | None = None
    version_age: float | None = None
    events_learned: int | None = None  # over all runs, from the live version's manifest
    learned_rate: float | None = None
    trained_through: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    history: Quantiles = NOTHING
    learned: Quantiles = NOTHING
    recall: float | None = None
    ndcg: float | None = None
    lag: float | None = None  # records the trainer has still to take in
    scorer_lag: float | None = None  # all scorers together
    rejected: float | None = None
    health: Mapping[str, str] = field(default_factory=dict)  # process -> "ok" or what it says instead
    versions: Mapping[str, int] = field(default_factory=dict)  # process -> the version it uses
    redis: str | None = None  # what is wrong with Redis


class Rate:
    """The growth of a counter per second, over the last few seconds."""

    def __init__(self, window: float = RATE_WINDOW) -> None:
        self._window = window
        self._seen: deque[tuple[float, float]] = deque()

    def note(self, now: float, value: float) -> None:
        if self._seen and value < self._seen[-1][1]:  # it began anew
            self._seen.clear()
        self._seen.append((now, value))
        while len(self._seen) > 2 and self._seen[1][0] <= now - self._window:
            self._seen.popleft()

    def per_second(self) -> float | None:
        if len(self._seen) < 2:
            return None
        (since, before), (until, after) = self._seen[0], self._seen[-1]
        return (after - before) / (until - since) if until > since else None


Buckets = Mapping[float, float]
"""Upper bound (inclusive) -> how many observations are not above it."""


def quantile(buckets: Buckets, q: float) -> float | None:
    """The q-quantile of a cumulative histogram, straight within its bucket; as Prometheus' histogram_quantile.

    Above the last finite bound it is that bound. None without observations.

    >>> quantile({0.1: 0, 0.2: 10, math.inf: 10}, 0.5)
    0.15000000000000002
    """
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    rank = q * buckets[bounds[-1]]
    below, count_below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank and buckets[bound] > count_below:
            if math.isinf(bound):
                return below
            return below + (bound - below) * (rank - count_below) / (buckets[bound] - count_below)
        below, count_below = (bound, buckets[bound]) if not math.isinf(bound) else (below, count_below)
    return below


class RecentHistogram:
    """A histogram of the last seconds, from the ever-growing ones of several processes that may begin anew."""

    def __init__(self, window: float = FRESHNESS_WINDOW) -> None:
        self._window = window
        self._before: dict[str, dict[float, float]] = {}  # process -> its buckets when last seen
        self._total: dict[float, float] = {}
        self._kept: deque[tuple[float, dict[float, float]]] = deque([(-math.inf, {})])

    def note(self, now: float, process: str, buckets: Buckets) -> None:
        before = self._before.get(process, {})
        if any(count < before.get(bound, 0) for bound, count in buckets.items()):
            before = {}
        for bound, count in buckets.items():
            self._total[bound] = self._total.get(bound, 0) + count - before.get(bound, 0)
        self._before[process] = dict(buckets)
        self._kept.append((now, dict(self._total)))
        while len(self._kept) > 1 and self._kept[1][0] <= now - self._window:
            self._kept.popleft()

    def quantiles(self) -> Quantiles:
        then = self._kept[0][1]
        recent = {bound: count - then.get(bound, 0) for bound, count in self._total.items()}
        return Quantiles(quantile(recent, 0.5), quantile(recent, 0.99))


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


class Observer:
    """Looks at everything about twice a second, on a thread of its own: a slow answer must not hold up the rest."""

    def __init__(
        self,
        redis: RedisConnection,
        keys: Keys,
        endpoints: Callable[[], Mapping[str, str]],  # process -> "http://host:port"; the trainer is called "trainer"
        events_topic: str = "events",
        *,
        every: float = 0.5,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._endpoints = endpoints
        self._events_topic = events_topic
        self._every = every
        self._rate = Rate()
        self._freshness = {stage: RecentHistogram() for stage in ("history", "learned")}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
        self.figures = Figures()  # replaced whole
        self.failure: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def list_of(self, user_id: str) -> Listed | None:
        """The user's list in Redis; None where there is none or Redis does not answer."""
        try:
            return parse_list(self._redis.call("GET", f"{self._keys.prefix}:recs:{user_id}"))
        except StoreUnavailable:
            return None

    def look(self) -> Figures:
        """Look once, and keep what was seen."""
        endpoints = self._endpoints()
        scrapes: dict[str, Scrape] = {}
        health: dict[str, str] = {}
        for process, url in endpoints.items():
            answer = fetch(f"{url}/metrics")
            scrapes[process] = parse_metrics(answer[1].decode(errors="replace")) if answer else {}
            health[process] = health_of(fetch(f"{url}/health"))
        now = time.monotonic()
        scorers = [scrape for process, scrape in scrapes.items() if process != "trainer"]
        trainer = scrapes.get("trainer", {})
        for stage, histogram in self._freshness.items():
            for process, scrape in scrapes.items():
                histogram.note(now, process, buckets_of(scrape, stage))
        live, manifest, wrong = self._live()
        learned = manifest.get("events_trained")
        if isinstance(learned, int):
            self._rate.note(now, learned)
        versions = {process: only(scrape, "model_version") for process, scrape in scrapes.items()}
        through = manifest.get("trained_through")
        self.figures = Figures(
            live_version=live,
            version_age=_age(manifest.get("created_at")),
            events_learned=learned if isinstance(learned, int) else None,
            learned_rate=self._rate.per_second(),
            trained_through=through if isinstance(through, dict) else {},
            history=self._freshness["history"].quantiles(),
            learned=self._freshness["learned"].quantiles(),
            recall=only(trainer, "prequential_recall_at_20"),
            ndcg=only(trainer, "prequential_ndcg_at_20"),
            lag=total([trainer], "consumer_lag_events", topic=self._events_topic),
            scorer_lag=total(scorers, "consumer_lag_events", topic=self._events_topic),
            rejected=total([trainer], "events_rejected_total"),
            health=health,
            versions={process: int(version) for process, version in versions.items() if version is not None},
            redis=wrong,
        )
        return self.figures

    def _live(self) -> tuple[int | None, dict[str, Any], str | None]:
        try:
            pointer = self._redis.call("GET", self._keys.live)
            if pointer is None:
                return None, {}, None
            manifest = orjson.loads(self._redis.call("GET", self._keys.manifest(int(pointer))) or b"{}")
            return int(pointer), manifest if isinstance(manifest, dict) else {}, None
        except StoreUnavailable as error:
            return None, {}, str(error)
        except ValueError:
            return None, {}, "the live version cannot be read"

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._every):
                self.look()
        except BaseException as error:
            self.failure = error
            raise


def parse_list(raw: bytes | None) -> Listed | None:
    """A list as the contract has it; None for anything else."""
    if raw is None:
        return None
    try:
        found = orjson.loads(raw)
        ids = tuple(str(item["item_id"]) for item in found["items"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    version, seen = found.get("model_version"), found.get("events_seen")
    return Listed(ids, version if isinstance(version, int) else None, seen if isinstance(seen, int) else None)


def outstanding(ends: Mapping[int, int], trained_through: Mapping[str, int]) -> int:
    """How many records of a topic are in Kafka and not yet in the live version."""
    return sum(max(0, end - trained_through.get(str(partition), 0)) for partition, end in ends.items())


def _age(created_at: object) -> float | None:
    if not isinstance(created_at, str):
        return None
    try:
        return max(0, now_ms() - parse_iso(created_at)) / 1000
    except ValueError:
        return None
