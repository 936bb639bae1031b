"""Where a trainer begins: at version 1 of a new model, or at the newest whole version of an old one."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import orjson

from consumers.topics import KafkaIdentity
from model_store.chain import newest_whole
from model_store.store import ModelStore
from model_store.version import KafkaIds
from model_store.weights import State
from service.process import Fatal
from service.settings import TrainerSettings
from service.training.learner import Learner, LearnerConfig
from service.training.progress import Progress
from service.training.publisher import digest

log = logging.getLogger(__name__)

OTHER_KAFKA = "go back to the Kafka it was, or begin anew with TIDEMILL_FRESH=1, or use another TIDEMILL_MODEL_NAME"

# they say where and how much is computed, not what
_NOT_IN_DIGEST = ("device", "evaluate_sample", "max_items", "max_users")


@dataclass
class Beginning:
    learner: Learner
    progress: Progress
    published: State  # of version `parent`; empty where there is none
    parent: int | None
    newest: int  # highest version number given so far; 0 where there is none


def learner_config(settings: TrainerSettings, device: str) -> LearnerConfig:
    return LearnerConfig(
        seed=settings.seed,
        device=device,
        event_weights=tuple(settings.event_weights.values()),
        history=settings.history_length,
        evaluate_sample=settings.evaluate_sample,
        max_items=settings.max_items,
        max_users=settings.max_users,
    )


def config_digest(config: LearnerConfig, event_types: list[str]) -> str:
    """Two trainers with the same digest make the same weights of the same micro-batches."""
    neutral = replace(config, **dict.fromkeys(_NOT_IN_DIGEST))  # type: ignore[arg-type]
    fields: dict[str, Any] = {"event_types": event_types, **vars(neutral)}
    return digest(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode())


def begin(store: ModelStore, config: LearnerConfig, config_digest: str, kafka: KafkaIds, *, fresh: bool) -> Beginning:
    """Raises Fatal when the stored model cannot be continued soundly, StoreUnavailable when Redis does not answer."""
    newest = store.newest() or 0
    found = None if fresh else newest_whole(store)
    if found is None:
        if newest and not fresh:
            raise Fatal(f"no version up to {newest} can be read whole; TIDEMILL_FRESH=1 begins anew from the events")
        return Beginning(Learner(config), Progress(), State(), None, newest)
    for version, problem in found.skipped:
        log.error("version %d is damaged and passed over: %s", version, problem)
    manifest = found.manifest
    if manifest.config_digest != config_digest:
        raise Fatal(
            f"version {manifest.version} was made with other settings (event weights, seed or history length) or "
            "another model; put them back, or begin anew with TIDEMILL_FRESH=1"
        )
    _check_kafka(manifest.kafka, kafka, manifest.version)
    log.info("continuing from version %d: %d events learned", manifest.version, manifest.events_trained)
    learner = Learner.restore(config, found.state)
    return Beginning(learner, Progress.of(manifest), found.state, manifest.version, max(newest, manifest.version))


def _check_kafka(then: KafkaIds, now: KafkaIds, version: int) -> None:
    """Offsets mean nothing in another cluster or in a topic that was made anew."""
    why = KafkaIdentity(then.cluster_id, then.topics).unlike(KafkaIdentity(now.cluster_id, now.topics))
    if why is not None:
        raise Fatal(f"the offsets of version {version} mean nothing here: {why}; {OTHER_KAFKA}")
