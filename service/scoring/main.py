"""`tidemill scorer`: makes everything a scorer works with, once, and runs it."""

import gc
import threading

import torch
from confluent_kafka import KafkaException

from consumers.decode import DecodeRules
from consumers.kafka_identity import IdentityWatch, KafkaIdentity
from consumers.kafka_source import KafkaSource
from consumers.logs import start_logging
from consumers.topics import prepare_topics
from model_store.errors import Damaged, NoSuchVersion, StoreUnavailable
from model_store.redis_connection import connect
from model_store.store import ModelStore
from service.health import Health
from service.health_server import HealthServer
from service.metrics import ScorerMetrics
from service.model.config import HistoryConfig
from service.model.registry import UnknownConfig, parse
from service.process import stop_on_signals, wait_for
from service.scoring.blocked_items import BlockedItems
from service.scoring.list_store import ListStore
from service.scoring.reloader import Reloader
from service.scoring.scorer import Scorer
from service.scoring.sweeper import Sweeper
from service.settings import ScorerSettings
from service.stores import model_store

FIRST_PORT = 9402
GARBAGE_AT = 50_000  # objects; a group of lists makes 7,000, which are gone with it. By default it would be 700
LISTS_TIMEOUT_S = 3.0  # histories and lists are small, so a Redis that takes longer is away


class OtherKafka(Exception):
    """The newest version has not learned from this Kafka. The trainer's operator decides whether to go on with it."""


def run_scorer(settings: ScorerSettings) -> int:
    """Runs until SIGTERM or SIGINT. Raises: Fatal; OSError where the metrics port is taken."""
    start_logging("scorer", settings.log_level)
    stop = stop_on_signals()
    torch.set_num_threads(settings.threads)
    gc.set_threshold(GARBAGE_AT)
    metrics = ScorerMetrics()
    health = Health("scorer", metrics.health_check)
    server = HealthServer(settings.metrics_host, settings.metrics_port, FIRST_PORT, health, metrics.registry)

    store = model_store(settings)
    reloader = Reloader(store, poll_s=settings.reload_poll_ms / 1000, device="cpu", metrics=metrics, health=health)
    reloader.start()
    try:
        identity = _kafka_to_read(settings, store, health, stop)
        if identity is not None:
            with IdentityWatch(settings.kafka_bootstrap, identity, extra=settings.kafka_config) as watch:
                live_history = wait_for("redis", lambda: _live_history(store), (StoreUnavailable,), health, stop)
                _score(settings, identity, watch, live_history, reloader, metrics, health, stop)
    finally:
        reloader.stop()
        server.close()
    return 0


def _kafka_to_read(
    settings: ScorerSettings, store: ModelStore, health: Health, stop: threading.Event
) -> KafkaIdentity | None:
    """Waits until the newest version has learned from this Kafka, and shows in /health what it waits for.

    Returns the identity of this Kafka; None when stopped.
    """

    def ask() -> KafkaIdentity:
        learned = wait_for("redis", lambda: _learned_from(store), StoreUnavailable, health, stop)
        here = prepare_topics(
            settings.kafka_bootstrap, settings.events_topic, settings.items_topic, extra=settings.kafka_config
        )
        if learned is not None and (why := learned.difference(here)) is not None:
            raise OtherKafka(f"{why}; waiting until the trainer has begun anew (`tidemill trainer --fresh`)")
        return here

    identity = wait_for("kafka", ask, (KafkaException, OtherKafka), health, stop)
    return None if stop.is_set() else identity


def _learned_from(store: ModelStore) -> KafkaIdentity | None:
    """The Kafka that the newest version has learned from; None where none can be read. Raises: StoreUnavailable."""
    newest = store.newest()
    if newest is None:
        return None
    try:
        learned = store.head(newest).kafka
    except (Damaged, NoSuchVersion):
        return None  # the trainer mends it, and looks at the version it goes on from
    return KafkaIdentity(learned.cluster_id, learned.topics)


def _live_history(store: ModelStore) -> HistoryConfig | None:
    """The section `history` of the live version; None where none can be read. Raises: StoreUnavailable."""
    try:
        live = store.live()
        return None if live is None else parse(store.head(live).config).history
    except (Damaged, NoSuchVersion, UnknownConfig):
        return None  # the reloader says so, and serves what it finds


def _score(
    settings: ScorerSettings,
    identity: KafkaIdentity,
    watch: IdentityWatch,
    live_history: HistoryConfig | None,
    reloader: Reloader,
    metrics: ScorerMetrics,
    health: Health,
    stop: threading.Event,
) -> None:
    """Runs the scorer, once Kafka and Redis have answered. Raises: Fatal."""
    lists = ListStore(
        connect(settings.redis_url, timeout=LISTS_TIMEOUT_S),
        settings.key_prefix,
        recs_ttl_s=settings.recs_ttl_s,
        history_ttl_s=settings.history_ttl_s,
        log_name=identity.log_of(settings.events_topic),
    )
    sweeper = Sweeper(lists, metrics)
    source = KafkaSource(
        settings.kafka_bootstrap,
        settings.consumer_group,
        session_timeout_ms=settings.session_timeout_ms,
        extra=settings.kafka_config,
    )
    items = KafkaSource(settings.kafka_bootstrap, f"{settings.consumer_group}-items", extra=settings.kafka_config)
    blocked = BlockedItems(
        items,
        settings.items_topic,
        DecodeRules(event_types=settings.event_weights, items_topic=settings.items_topic),
    )
    sweeper.start()
    try:
        Scorer(
            source,
            blocked,
            reloader,
            lists,
            sweeper,
            settings,
            metrics=metrics,
            health=health,
            stop=stop,
            live_history=live_history,
            other_kafka=lambda: watch.changed,
        ).run()
    finally:
        sweeper.stop()
