"""`tidemill scorer`: everything a scoring worker works with is made here, once."""

import torch

from consumers.decode import DecodeRules
from consumers.kafka_source import KafkaSource
from model_store.redis_connection import connect
from service.health import Health, HealthServer
from service.metrics import ScorerMetrics
from service.process import start_logging, stop_on_signals
from service.scoring.catalogue import Catalogue
from service.scoring.list_store import ListStore
from service.scoring.reloader import Reloader
from service.scoring.scorer import Scorer
from service.scoring.sweeper import Sweeper
from service.settings import ScorerSettings
from service.stores import model_store

FIRST_PORT = 9402


def run_scorer(settings: ScorerSettings) -> int:
    """Until SIGTERM or SIGINT. Raises OSError when the metrics port is taken."""
    start_logging("scorer", settings.log_level)
    stop = stop_on_signals()
    torch.set_num_threads(settings.threads)
    metrics, health = ScorerMetrics(), Health("scorer")
    server = HealthServer(settings.metrics_host, settings.metrics_port, FIRST_PORT, health, metrics.registry)

    redis = connect(settings.redis_url)
    lists = ListStore(redis, settings.key_prefix, recs_ttl_s=settings.recs_ttl_s, history_ttl_s=settings.history_ttl_s)
    store = model_store(settings)
    reloader = Reloader(store, poll_s=settings.reload_poll_ms / 1000, device="cpu", metrics=metrics, health=health)
    sweeper = Sweeper(lists, metrics)
    source = KafkaSource(
        settings.kafka_bootstrap,
        settings.consumer_group,
        session_timeout_ms=settings.session_timeout_ms,
        extra=settings.kafka_config,
    )
    items = KafkaSource(settings.kafka_bootstrap, f"{settings.consumer_group}-items", extra=settings.kafka_config)
    catalogue = Catalogue(
        items,
        settings.items_topic,
        DecodeRules(event_types=settings.event_weights, items_topic=settings.items_topic),
    )
    reloader.start()
    sweeper.start()
    try:
        Scorer(source, catalogue, reloader, lists, sweeper, settings, metrics=metrics, health=health, stop=stop).run()
    finally:
        sweeper.stop()
        reloader.stop()
        server.close()
    return 0
