"""Writes one version of the draft, again and again until the store has it."""

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from consumers.records import by_topic
from model_store.codec import encode
from model_store.errors import Incomplete, InvalidUpdate, NoSuchVersion
from model_store.lease import Lease
from model_store.store import ModelStore
from model_store.version import Kind, Manifest, timestamp
from model_store.weights import Update
from service.training.publishing.draft import Draft
from service.training.publishing.lineage import Lineage
from service.training.publishing.pointer import Pointer
from service.training.publishing.retry import Retry
from service.training.publishing.submission import Origin

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Release:
    """A published version."""

    manifest: Manifest
    bytes: int  # of its blobs


class Releaser:
    """Makes versions of the draft and writes them to the store."""

    def __init__(
        self,
        store: ModelStore,
        lease: Lease,
        origin: Origin,
        draft: Draft,
        lineage: Lineage,
        pointer: Pointer,
        retry: Retry,
        logarithms: Collection[str],
    ) -> None:
        """`logarithms`: the tables in which -inf is allowed."""
        self._store, self._lease, self._origin = store, lease, origin
        self._draft, self._lineage = draft, lineage
        self._pointer, self._retry, self._logarithms = pointer, retry, logarithms

    def release(self, kind: Kind, metrics: Mapping[str, float], why_not: str | None, *, checkpoint: bool) -> Release:
        """Publishes the next version, with everything that has changed since the one before, and makes it live unless
        there is a reason `why_not`. A delta becomes a snapshot where the store has lost its parent.

        Raises: InvalidUpdate for weights that are not finite, and then nothing has changed; LeaseLost; the store's last
        error, when stopped before the version is published.
        """
        checkpoint = checkpoint or kind == "snapshot"
        changed = self._draft.take(checkpoint=checkpoint)
        try:
            blobs = self._encoded(self._draft.state.snapshot() if kind == "snapshot" else changed)
        except InvalidUpdate:
            self._draft.give_back(changed)
            raise
        version, created_at = self._lineage.newest + 1, timestamp(time.time())

        def attempt() -> Manifest:
            if self._lineage.in_doubt and kind == "snapshot":  # a delta fits its own parent and no other
                self._lineage.settle(self._store.newest())
            manifest = self._manifest(version, kind, created_at, metrics, checkpoint, blobs)
            self._store.publish(manifest, self._lease)
            self._pointer.point_at(version, why_not)
            return manifest

        while True:
            try:
                manifest = self._retry.until_done(attempt)
                break
            except (Incomplete, NoSuchVersion) as error:
                log.warning(
                    "the store has lost what version %d builds on, so it becomes a snapshot: %s", version, error
                )
                self._lineage.in_doubt = True
                if kind == "snapshot":  # it needs only its own blobs, which were lost between two calls
                    self._retry.pause(error)
                else:
                    self._retry.failed(error)
                    kind, checkpoint = "snapshot", True
                    self._draft.take(checkpoint=True)
                    blobs = self._encoded(self._draft.state.snapshot())
        self._lineage.released(manifest)
        return Release(manifest, sum(len(blob) for blob in blobs.values()))

    def _encoded(self, update: Update) -> dict[str, bytes]:
        """The blobs of an update. Raises: InvalidUpdate."""
        return encode(update, logarithms=self._logarithms)

    def _manifest(
        self,
        version: int,
        kind: Kind,
        created_at: str,
        metrics: Mapping[str, float],
        checkpoint: bool,
        blobs: Mapping[str, bytes],
    ) -> Manifest:
        """Puts the blobs into the store, and makes the manifest that names them."""
        origin, latest = self._origin, self._draft.latest
        return Manifest(
            version=version,
            parent=self._lineage.parent,
            kind=kind,
            created_at=created_at,
            run_id=origin.run_id,
            kafka=origin.kafka,
            trained_through=by_topic(latest.trained_through),
            events_trained=latest.events_trained,
            batches=tuple(self._lineage.batches),
            checkpoint=checkpoint,
            config_digest=origin.config_digest,
            config=dict(origin.config),
            environment=dict(origin.environment),
            metrics=dict(metrics),
            blobs=self._store.put_blobs(blobs),
        )
