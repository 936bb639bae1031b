"""Where a trainer begins: with a new model, or with the newest version of an earlier run."""

import logging
from dataclasses import dataclass

import torch

from consumers.kafka_identity import KafkaIdentity
from consumers.recorded import EventsGone
from model_store.chain import Found, ancestors, load, newest_checkpoint
from model_store.changes import Changes
from model_store.errors import BrokenChain, Damaged, DamagedManifest, NoSuchVersion
from model_store.store import CHALLENGER, ModelStore
from model_store.version import BatchRecord, Head, KafkaIds, Manifest
from model_store.weights import State
from service.metrics import TrainerMetrics
from service.model.config import ModelConfig
from service.model.formats import upgraded_state
from service.process import Unmendable
from service.training.configuration import compute_as, config_of, continued, differences
from service.training.gate.keeper import REFERENCE
from service.training.learner import Learner
from service.training.progress import Progress
from service.training.publishing.submission import Origin, Standing, for_trainers
from service.training.restart.rebuild import OpenReader, rebuild

log = logging.getLogger(__name__)

ANEW = "begin anew with `tidemill trainer --fresh`"
OTHER_KAFKA = f"go back to the Kafka it was, or {ANEW}, or use another TIDEMILL_MODEL_NAME"


@dataclass
class Beginning:
    """What a trainer begins with."""

    learner: Learner
    progress: Progress
    standing: Standing
    origin: Origin  # with the configuration with which the model goes on


def begin(
    store: ModelStore,
    config: ModelConfig,
    device: str,
    origin: Origin,
    open_reader: OpenReader,
    *,
    fresh: bool,
    metrics: TrainerMetrics,
) -> Beginning:
    """A new model where the store has none or `fresh` is set. Else the newest checkpoint, and what was published since,
    learned again.

    Raises: Unmendable when the stored model cannot be continued soundly; StoreUnavailable when Redis does not answer,
    and NoAnswer when Kafka does not.
    """
    newest = store.newest() or 0
    found = None if fresh else newest_checkpoint(store)
    if found is None:
        if newest and not fresh:
            raise Unmendable(_nothing_to_continue(store, newest))
        return Beginning(Learner(config, device), Progress(), Standing(newest=newest), origin)
    for version, problem in found.skipped:
        log.error("version %d is damaged and passed over: %s", version, problem)
    config = _continued(found.manifest, config)
    origin = origin.making(config)
    _say_differences(found.manifest, origin)
    _check_kafka(found.manifest.kafka, origin.kafka, found.version)
    log.info("continuing from version %d: %d events learned", found.version, found.manifest.events_trained)
    return _learned_again(store, config, device, origin, found, newest, open_reader, metrics)


def _learned_again(
    store: ModelStore,
    config: ModelConfig,
    device: str,
    origin: Origin,
    found: Found,
    newest: int,
    open_reader: OpenReader,
    metrics: TrainerMetrics,
) -> Beginning:
    """Learns the versions after the checkpoint again from their events, and compares them with what was published.

    The next version follows on the last one that comes out the same and can be read; else on the checkpoint.
    """
    state, parent = upgraded_state(found.state), found.manifest
    batches, unsaved = list[BatchRecord](), Changes(for_trainers)
    learner, progress = Learner.restore(config, state, device), Progress.of(found.manifest)
    whole, threads = not found.skipped, torch.get_num_threads()
    if since := _published_since(store, found, newest):
        log.info("learning again what versions %d to %d had learned", since[0].version, since[-1].version)
        try:
            again = rebuild(
                learner,
                progress,
                since,
                open_reader(since),
                lambda version: load(store, version),
                prepare=compute_as,
            )
            for step in again:
                whole = whole and step.same is not False
                metrics.versions_relearned.labels("no" if step.same is False else "yes").inc()
                if step.same is False:
                    log.error("version %d comes out different when it is learned again", step.manifest.version)
                state.apply(step.update)
                unsaved.add(step.update)
                batches += step.manifest.batches
                if whole:
                    parent, batches = step.manifest, []
            if batches and any(config_of(manifest).limits != config.limits for manifest in since):
                raise BrokenChain("they would have to be published anew, and were learned within other limits")
        except (EventsGone, Damaged, NoSuchVersion) as error:
            log.error("what was published after version %d cannot be learned again: %s", found.version, error)
            log.error("so learning goes on from version %d", found.version)
            state, parent = upgraded_state(load(store, found.version)), found.manifest
            batches, unsaved = [], Changes(for_trainers)
            learner, progress = Learner.restore(config, state, device), Progress.of(found.manifest)
    torch.set_num_threads(threads)
    learner.limits = config.limits
    progress.batches = []
    opened = CHALLENGER not in store.aliases() or store.pinned() is not None
    reference = None if opened else _reference(store)
    standing = Standing(
        state=state,
        parent=parent.version,
        parent_at=parent.created,
        newest=newest,
        batches=tuple(batches),
        chained=not batches and parent.config_digest == origin.config_digest,
        unsaved=unsaved,
        events=progress.events_trained,
        opened=opened,
        reference=reference,
    )
    return Beginning(learner, progress, standing, origin)


def _published_since(store: ModelStore, found: Found, newest: int) -> list[Manifest]:
    """The versions after the checkpoint up to the newest one, ascending; none where the record has a gap."""
    since: list[Manifest] = []
    why = "is not on record"
    try:
        for manifest in ancestors(store, newest):
            if manifest.version == found.version:
                return since[::-1]
            if manifest.config_digest != found.manifest.config_digest:
                why = f"is of another configuration in version {manifest.version}"
                break
            since.append(manifest)
    except DamagedManifest as error:
        why = f"cannot be read ({error})"
    log.error(
        "how versions %d to %d were made %s; learning goes on from version %d",
        found.version + 1, newest, why, found.version,
    )  # fmt: skip
    return []


def _reference(store: ModelStore) -> tuple[int, State] | None:
    """The gate's reference and its state; None where there is none that can be read."""
    version = store.aliases().get(REFERENCE)
    if version is None:
        return None
    try:
        return version, upgraded_state(load(store, version, readers=True))
    except (Damaged, NoSuchVersion) as error:
        log.error("the gate's reference, version %d, cannot be read: %s", version, error)
        return None


def _continued(manifest: Head, wanted: ModelConfig) -> ModelConfig:
    """The configuration to go on with. Raises: Unmendable where the settings ask for another model."""
    try:
        return continued(config_of(manifest), wanted)
    except ValueError as error:
        raise Unmendable(
            f"version {manifest.version} was made with other settings ({error}); put them back, or {ANEW}"
        ) from None


def _say_differences(manifest: Head, origin: Origin) -> None:
    """Logs other limits, libraries and machines, with which a model may go on."""
    changed = differences(config_of(manifest).to_json(), origin.config)
    if changed := [*changed, *differences(manifest.environment, origin.environment)]:
        log.info("version %d was made otherwise: %s", manifest.version, ", ".join(changed))


def _nothing_to_continue(store: ModelStore, newest: int) -> str:
    try:
        load(store, newest)
        why = "it came only now"
    except Damaged as error:
        why = str(error)
    unsigned = "" if store.signer is None else "TIDEMILL_ADOPT_UNSIGNED=1 continues from before there was a key; "
    return f"no version up to {newest} can be read whole ({why}); {unsigned}{ANEW}, from the events"


def _check_kafka(then: KafkaIds, now: KafkaIds, version: int) -> None:
    """Raises: Unmendable where the cluster or a topic is another one, since offsets of the old one mean nothing in
    it."""
    why = KafkaIdentity(then.cluster_id, then.topics).difference(KafkaIdentity(now.cluster_id, now.topics))
    if why is not None:
        raise Unmendable(f"the offsets of version {version} mean nothing here: {why}; {OTHER_KAFKA}")
