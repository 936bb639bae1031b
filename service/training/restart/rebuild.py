"""Makes versions again: from an earlier state, the batches in their manifests and the events in Kafka.

A restarted trainer does so with the versions since the last checkpoint, and `tidemill verify` to prove a version.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from consumers.kafka_source import KafkaSource
from consumers.micro_batch import MicroBatch
from consumers.recorded import RecordedStream
from consumers.records import OffsetRange
from model_store.codec import WEIGHTS_GROUP, checksum, encode
from model_store.errors import BrokenChain
from model_store.version import BatchRecord, Manifest
from model_store.weights import TRAINER, State, Update
from service.model.formats import as_flat, is_flat
from service.training.configuration import config_of
from service.training.effort import Effort
from service.training.learner import Learner
from service.training.progress import Progress

ReadBatch = Callable[[BatchRecord], MicroBatch]
"""Reads the events of a batch from Kafka. Raises: EventsGone, NoAnswer."""

OpenReader = Callable[[Sequence[Manifest]], ReadBatch]
"""Makes a reader for the batches of these manifests, to be read in their order."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A version that has been learned again."""

    manifest: Manifest
    same: bool | None  # whether its blobs have the checksums that were published; None for a snapshot, which has others
    update: Update  # what changed since the version before


def from_kafka(
    stack: ExitStack, bootstrap: str, kafka: Mapping[str, Any], event_types: Mapping[str, float], items_topic: str
) -> OpenReader:
    """A reader for each call, over a Kafka consumer of its own; `stack` closes the consumers."""

    def open_reader(manifests: Sequence[Manifest]) -> ReadBatch:
        source = KafkaSource(bootstrap, "tidemill-rebuild", extra=kafka)
        stack.callback(source.close)
        ranges = [OffsetRange(*r) for manifest in manifests for batch in manifest.batches for r in batch.ranges]
        stream = RecordedStream(source, ranges, event_types, items_topic)
        return lambda batch: stream.read([OffsetRange(*r) for r in batch.ranges], batch.records, batch.ahead)

    return open_reader


def resets(manifests: Sequence[Manifest]) -> set[int]:
    """The versions whose weights learning went back to in the batches of `manifests`."""
    back = {batch.weights_of_version for manifest in manifests for batch in manifest.batches}
    return {version for version in back if version is not None}


def rebuild(
    learner: Learner,
    progress: Progress,
    manifests: Sequence[Manifest],
    read: ReadBatch,
    state_of: Callable[[int], State],
    *,
    prepare: Callable[[Manifest], None] = lambda manifest: None,
) -> Iterator[Rebuilt]:
    """Learns the batches of `manifests` in their order, and yields after each version.

    learner, progress: they have learned what comes before `manifests`, and are changed.
    state_of: reads a version that weights went back to, where it is not among `manifests`.
    prepare: called before each version.

    Raises: what `read` and `state_of` raise; BrokenChain where a version's batches do not follow on those before.
    """
    targets = resets(manifests)
    passed: dict[int, State] = {}
    for manifest in manifests:
        prepare(manifest)
        learner.limits = config_of(manifest).limits
        for record in manifest.batches:
            batch = read(record)
            effort = Effort.of(record)
            result = learner.learn(batch, effort)
            if (target := record.weights_of_version) is not None:
                learner.reset_weights(passed[target] if target in passed else state_of(target))
            try:
                progress.add(batch, result, effort, target)
            except ValueError as error:
                raise BrokenChain(f"version {manifest.version}: {error}", manifest.version) from None
        update = learner.drain()
        if manifest.version in targets:
            passed[manifest.version] = State()
            passed[manifest.version].apply(learner.snapshot())
        yield Rebuilt(manifest, _same(manifest, update, learner.recommender.traits.logarithms), update)


def _same(manifest: Manifest, update: Update, logarithms: Collection[str]) -> bool | None:
    if manifest.kind != "delta":
        return None
    weights = Update(
        full=False,
        tables={name: rows for name, rows in update.tables.items() if not name.startswith(TRAINER)},
        tensors={name: tensor for name, tensor in update.tensors.items() if not name.startswith(TRAINER)},
    )
    if is_flat(manifest.config):
        weights = as_flat(weights)
    found = {name: checksum(data) for name, data in encode(weights, logarithms=logarithms).items()}
    published = {name: ref.checksum for name, ref in manifest.blobs.items() if name.startswith(WEIGHTS_GROUP)}
    return found == published
