"""Looks at a running Tidemill through its public contract: Redis keys, and each process's /metrics and /health."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from consumers.times import now_ms, parse_iso
from model_store.errors import StoreUnavailable
from model_store.keys import Keys
from model_store.redis_connection import RedisConnection
from service.up.figures import Figures, Listed
from service.up.recent import Rate, RecentHistogram
from service.up.scrape import Scrape, buckets_of, fetch, health_of, only, parse_metrics, total


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


def _age(created_at: object) -> float | None:
    if not isinstance(created_at, str):
        return None
    try:
        return max(0, now_ms() - parse_iso(created_at)) / 1000
    except ValueError:
        return None
