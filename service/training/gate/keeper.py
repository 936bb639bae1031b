"""Keeps the gate's inputs from version to version: the norms of the weights, and the reference with its alias."""

import logging

from model_store.changes import Changes
from model_store.errors import InvalidUpdate, NoSuchVersion, StoreUnavailable
from model_store.lease import Lease
from model_store.store import ModelStore
from model_store.weights import State, Update
from service.health import OK, Health
from service.metrics import TrainerMetrics
from service.training.evaluation.measures import PairedSums
from service.training.gate.gate import Gate, GateRules, Verdict
from service.training.gate.norms import Norms, NormTracker
from service.training.reference import Reference

log = logging.getLogger(__name__)

REFERENCE = "reference"  # the alias of the version that the gate compares with


class GateKeeper:
    """For each submission call `judge`, then `released` where a version was made of it, else `could_not_write`."""

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
        """opened: whether the gate was open when the last run ended. events: learned by then."""
        self.reference = reference
        self.version: int | None = None  # the reference's; None until there is one
        self._store, self._lease, self._metrics, self._health = store, lease, metrics, health
        self._gate = Gate(rules, opened=opened, events=events)
        self._norms = NormTracker(reference.traits.learned)
        self._changes = Changes(reference.owns)  # since the reference
        self._unnamed = False  # the alias does not name the present reference yet

    def begin(self, state: State, version: int, reference: State | None) -> None:
        """Begins with a model that goes on from `state`. version: the reference; reference: its state, where it differs
        from `state`."""
        everything = (reference or state).snapshot(self.reference.owns)
        self._norms.measure(State(), state.snapshot(self.reference.owns))
        self._take(everything, NormTracker(self.reference.traits.learned).measure(State(), everything), version)
        if reference is not None:
            self._changes.add(state.snapshot(self.reference.owns))  # which rows differ is not known, so all may

    def judge(self, before: State, update: Update, measured: PairedSums, events: int, *, reverted: bool) -> Verdict:
        """What is to be done with the version that `update` makes of the state `before`.

        measured: the comparison with the reference, on its events. events: learned in all. reverted: learning went back
        to the reference's weights since the last submission.
        """
        norms = self._norms.measure(before, update)
        self._changes.add(update)
        if reverted:
            self._gate.reverted()
        self._gate.observe(measured, events)
        verdict = self._gate.verdict(norms)
        self._metrics.gate_open.set(verdict.why_not is None)
        self._metrics.gate_difference.show(self._gate.difference)
        return verdict

    def released(self, version: int, state: State, verdict: Verdict) -> None:
        """To be called when a version of this state is published. Raises: LeaseLost."""
        why_not = verdict.why_not
        self._health.set("gate", OK if why_not is None else f"versions are published and do not go live: {why_not}")
        if why_not is None and (verdict.advance or self.version is None):
            self._take(self._changes.take(state), verdict.norms, version)
            self._unnamed = True
        if self._unnamed:
            self._name_reference()

    def could_not_write(self, error: InvalidUpdate) -> None:
        """To be called when no version could be made, since weights are not finite."""
        log.error("no version can be made of weights that are not numbers: %s", error)
        self._health.set("gate", f"no version can be made: {error}")
        self._metrics.versions_held_back.inc()

    def _take(self, update: Update, norms: Norms, version: int) -> None:
        self.reference.apply(update)
        self._gate.advanced(norms)
        self._norms.settle(update)
        self.version = version

    def _name_reference(self) -> None:
        """Moves the alias to the reference, so that the next run finds it. Where that fails, again with the next
        version."""
        assert self.version is not None
        try:
            self._store.move(self.version, "found good", alias=REFERENCE, lease=self._lease)
        except StoreUnavailable as error:
            log.warning("version %d, the reference, has no alias yet: %s", self.version, error)
        except NoSuchVersion as error:
            log.warning("the reference has no alias: %s", error)
            self._unnamed = False
        else:
            self._unnamed = False
