"""`tidemill trainer`: makes everything the trainer works with, once, and runs it."""

import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import torch
from confluent_kafka import KafkaException

from consumers.dead_letters import KafkaDeadLetters
from consumers.feeder import FeederConfig
from consumers.feeder_process import start_feeder
from consumers.kafka_identity import IdentityWatch
from consumers.logs import start_logging
from consumers.recorded import NoAnswer
from consumers.topics import prepare_topics
from model_store.errors import StoreUnavailable
from model_store.lease import Lease, LeaseKeeper, Leases, wait_for_lease
from model_store.redis_connection import connect
from model_store.redis_store import RedisStore
from model_store.version import KafkaIds
from service.health import OK, Health
from service.health_server import HealthServer
from service.metrics import TrainerMetrics
from service.model.config import ModelConfig
from service.process import Fatal, stop_on_signals, wait_for
from service.redis_shelf import RedisShelf
from service.settings import TrainerSettings
from service.stores import model_store
from service.training.configuration import environment, model_config
from service.training.gate.gate import GateRules
from service.training.publishing.publisher import Publisher
from service.training.publishing.rules import PublisherRules
from service.training.publishing.submission import Origin, Submission
from service.training.reference import Reference
from service.training.refused_letters import RefusedLetters
from service.training.restart.rebuild import from_kafka
from service.training.restart.resume import Beginning, begin
from service.training.trainer import Trainer

log = logging.getLogger(__name__)

FIRST_PORT = 9401  # a standby on the same machine takes the next free one
LEASE_PATIENCE_S = 1.0  # a free lease is taken at once; a longer wait is shown in /health


def run_trainer(settings: TrainerSettings) -> int:
    """Runs until SIGTERM or SIGINT. Raises: Fatal; OSError where the metrics port is taken."""
    start_logging("trainer", settings.log_level)
    stop = stop_on_signals()
    metrics = TrainerMetrics()
    metrics.leads.set(0)
    health = Health("trainer", metrics.health_check)
    server = HealthServer(settings.metrics_host, settings.metrics_port, FIRST_PORT, health, metrics.registry)
    try:
        _work(settings, metrics, health, stop)
    finally:
        server.close()
    return 0


def _work(settings: TrainerSettings, metrics: TrainerMetrics, health: Health, stop: threading.Event) -> None:
    torch.set_num_threads(settings.threads)
    # the same as `use_deterministic_algorithms`, which also imports a compiler that is not used here, for 1.5 s
    torch.set_deterministic_debug_mode("error")
    store = model_store(settings, checkpoint_url=settings.checkpoint_url, adopt_unsigned=settings.adopt_unsigned)
    run_id = uuid.uuid4().hex
    if settings.adopt_unsigned:
        log.warning("TIDEMILL_ADOPT_UNSIGNED: versions without a signature are believed; unset it after this start")

    bootstrap, extra = settings.kafka_bootstrap, settings.kafka_config
    identity = wait_for(
        "kafka",
        lambda: prepare_topics(bootstrap, settings.events_topic, settings.items_topic, extra=extra),
        KafkaException,
        health,
        stop,
    )
    if identity is None:
        return
    kafka = KafkaIds(cluster_id=identity.cluster_id, topics=identity.topic_ids)
    holder = f"{socket.gethostname()}:{os.getpid()}:{run_id[:8]}"
    leases = _ShownLeases(model_store(settings, answer_within_s=settings.lease_seconds), health)
    lease = _lease(leases, holder, settings.lease_seconds, health, stop)
    if lease is None:
        return
    with (
        LeaseKeeper(leases, lease, settings.lease_seconds) as keeper,
        IdentityWatch(bootstrap, identity, extra=extra) as watch,
    ):
        health.set("lease")
        metrics.leads.set(1)
        _lead(settings, store, lease, keeper, kafka, run_id, metrics, health, stop, lambda: watch.changed)


def _lead(
    settings: TrainerSettings,
    store: RedisStore,
    lease: Lease,
    keeper: LeaseKeeper,
    kafka: KafkaIds,
    run_id: str,
    metrics: TrainerMetrics,
    health: Health,
    stop: threading.Event,
    other_kafka: Callable[[], str | None],
) -> None:
    """Begins the model or goes on with it, and trains, while this trainer holds the lease."""
    config, device = model_config(settings), _device(settings.device)
    origin = Origin.of(run_id, kafka, config, environment(device))

    def begun() -> Beginning | None:
        return wait_for(
            "kafka", lambda: _begin(settings, store, config, device, origin, metrics), NoAnswer, health, stop
        )

    start = wait_for("redis", begun, StoreUnavailable, health, stop)
    if start is None:
        return
    publisher = Publisher(
        store,
        lease,
        PublisherRules(
            interval_s=settings.publish_interval_ms / 1000,
            snapshot_interval_s=settings.snapshot_interval_s,
            chain_limit=settings.chain_limit,
            chain_bytes_ratio=settings.chain_bytes_ratio,
            keep_snapshots=settings.keep_snapshots,
            grace_s=settings.reader_grace_seconds,
            checkpoint_interval_s=settings.checkpoint_interval_s,
            promote_after_s=settings.promote_after_s,
            gate=GateRules(enabled=settings.gate),
        ),
        start.origin,
        start.standing,
        Reference(start.learner.recommender),
        metrics=metrics,
        health=health,
    )
    with ExitStack() as stack:
        stack.callback(publisher.stop)
        publisher.start()
        if start.standing.parent is None:  # version 1 is published before the first event is read
            publisher.submit(Submission(start.learner.snapshot(), (), {}, 0, {}))
            start.learner.drain()
            while not publisher.wait_idle(0.2) and not stop.is_set():
                pass
        feeder_config = FeederConfig(
            bootstrap=settings.kafka_bootstrap,
            events_topic=settings.events_topic,
            items_topic=settings.items_topic,
            event_types=settings.event_weights,
            batch_events=settings.batch_events,
            batch_wait_s=settings.batch_wait_ms / 1000,
            future_tolerance_ms=int(settings.future_tolerance_hours * 3_600_000),
            kafka=settings.kafka_config,
        )
        refused = RefusedLetters(
            RedisShelf(connect(settings.redis_url), settings.key_prefix),
            (settings.events_topic, settings.items_topic),
            lambda: KafkaDeadLetters(settings.kafka_bootstrap, extra=settings.kafka_config),
            metrics=metrics,
            health=health,
        )
        stack.callback(refused.stop)
        refused.start()
        Trainer(
            start.learner,
            start.progress,
            publisher,
            keeper,
            lambda offsets: start_feeder(replace(feeder_config, start=dict(offsets))),
            refused,
            event_types=list(settings.event_weights),
            batch_events=settings.batch_events,
            replay=settings.replay,
            adapt=settings.adapt,
            metrics=metrics,
            health=health,
            stop=stop,
            other_kafka=other_kafka,
        ).run()


def _begin(
    settings: TrainerSettings,
    store: RedisStore,
    config: ModelConfig,
    device: str,
    origin: Origin,
    metrics: TrainerMetrics,
) -> Beginning:
    with ExitStack() as stack:
        open_reader = from_kafka(
            stack, settings.kafka_bootstrap, settings.kafka_config, settings.event_weights, settings.items_topic
        )
        beginning = begin(store, config, device, origin, open_reader, fresh=settings.fresh, metrics=metrics)
        beginning.learner.evaluate_sample = settings.evaluate_sample
        return beginning


class _ShownLeases(Leases):
    """Shows in /health when the lease cannot be renewed.

    `leases` has connections of its own, whose timeout is the lifetime of the lease. So a silent Redis shows long before
    the timeout for a large blob is over.
    """

    def __init__(self, leases: Leases, health: Health) -> None:
        self._leases, self._health = leases, health

    def acquire(self, holder: str, ttl: float) -> Lease | None:
        return self._leases.acquire(holder, ttl)

    def renew(self, lease: Lease, ttl: float) -> bool:
        try:
            renewed = self._leases.renew(lease, ttl)
        except StoreUnavailable as error:
            self._health.set("lease", f"not renewed: {error}")
            raise
        self._health.set("lease", OK if renewed else "another trainer has taken it")
        return renewed

    def release(self, lease: Lease) -> None:
        self._leases.release(lease)


def _lease(store: Leases, holder: str, ttl: float, health: Health, stop: threading.Event) -> Lease | None:
    """Waits for the lease, and says so in /health where it takes longer than LEASE_PATIENCE_S. None when stopped."""
    say = threading.Timer(LEASE_PATIENCE_S, health.set, ("lease", "waiting for the lease: another trainer may hold it"))
    say.start()
    try:
        return wait_for_lease(store, holder, ttl, stop)
    finally:
        say.cancel()
        say.join()


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError) as error:
        raise Fatal(f"TIDEMILL_DEVICE={wanted} cannot be used: {str(error).splitlines()[0]}") from error
    return wanted
