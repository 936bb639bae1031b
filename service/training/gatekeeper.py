"""What the gate goes by, from version to version: the health of the weights, and the reference with its alias."""

import logging
from collections.abc import Mapping

from model_store.changes import Changes
from model_store.errors import InvalidUpdate, NoSuchVersion, StoreUnavailable
from model_store.lease import Lease
from model_store.store import ModelStore
from model_store.weights import State, Update
from service.health import OK, Health
from service.metrics import TrainerMetrics
from service.training.evaluation.measures import PairedSums
from service.training.gate import Gate, GateRules, WeightHealth, figures
from service.training.gate import Health as WeightsHealth
from service.training.reference import Reference

log = logging.getLogger(__name__)

REFERENCE = "reference"  # the alias of the version that the gate compares with


class GateKeeper:
    """`judge` each candidate, then say what became of it with `released`, or `could_not_write`."""

    def __init__(
        self,
        rules: GateRules,
        reference: Reference,
        store: ModelStore,
        lease: Lease,
        *,
        opened: bool,
        events: int,
        metrics: TrainerMetrics,
        health: Health,
    ) -> None:
        """opened, events: whether the gate was open when the last run ended, and how much had been learned."""
        self.reference = reference
        self.revert_to: int | None = None  # the version whose weights learning should go back to
        self._store, self._lease, self._metrics, self._health = store, lease, metrics, health
        self._gate = Gate(rules, opened=opened, events=events)
        self._weights = WeightHealth(reference.traits.learned)
        self._latest = WeightsHealth()
        self._changes = Changes(reference.owns)  # since the reference
        self._version: int | None = None  # the reference's

    def begin(self, state: State, version: int, reference: State | None) -> None:
        """state: what learning goes on from. version: the reference, and its state where that is another."""
        everything = (reference or state).snapshot(self.reference.owns)
        self._weights.measure(State(), state.snapshot(self.reference.owns))
        self._take(everything, WeightHealth(self.reference.traits.learned).measure(State(), everything), version)
        if reference is not None:
            self._changes.add(state.snapshot(self.reference.owns))  # what differs is not known, so everything may

    def judge(
        self, before: State, update: Update, measured: PairedSums, events: int, *, reverted: bool
    ) -> tuple[str | None, Mapping[str, float]]:
        """Why a version must not go live (None: it may), and the figures of its weights for the manifest.

        before: what `update` is about to be applied to. measured: against the reference, while it was learned.
        """
        self._latest = self._weights.measure(before, update)
        self._changes.add(update)
        if reverted:
            self._gate.reverted()
        self._gate.observe(measured, events)
        why_not = self._gate.verdict(self._latest)
        self._metrics.gate_open.set(why_not is None)
        self._metrics.gate_difference.set(self._gate.difference)
        return why_not, figures(self._latest)

    def released(self, version: int, state: State, why_not: str | None) -> None:
        """A version is published, of this state. Raises: LeaseLost."""
        self._health.set("gate", OK if why_not is None else f"versions are published and do not go live: {why_not}")
        if why_not is None and (self._version is None or self._gate.should_advance()):
            self._take(self._changes.take(state), self._latest, version)
            try:
                self._store.move(version, "found good", alias=REFERENCE, lease=self._lease)
            except (StoreUnavailable, NoSuchVersion) as error:
                log.warning("version %d has no alias yet: %s", version, error)
        if self._gate.should_revert():
            self.revert_to = self._version

    def could_not_write(self, error: InvalidUpdate) -> None:
        """No version could be made at all: the weights are not numbers."""
        log.error("no version can be made of weights that are not numbers: %s", error)
        self._health.set("gate", f"no version can be made: {error}")
        self._metrics.versions_held_back.inc()
        self.revert_to = self._version

    def _take(self, update: Update, health: WeightsHealth, version: int) -> None:
        self.reference.apply(update)
        self._gate.advanced(health)
        self._weights.settle(update)
        self._version = version
