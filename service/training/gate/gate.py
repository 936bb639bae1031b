"""Whether a version may go live: its weights must be sound, and must predict no worse than weights known to be good.

The gate compares with a *reference*: a version that was found good, some thousand events ago. The trainer's present
weights and the reference's rank the same events before they are learned from. So a stretch of the stream that is hard
to predict counts against neither, and the difference is only what learning has done since. The gate looks for two
things:

* present weights that do worse than the reference's: learning has spoilt something;
* a reference that does much worse than it used to, with present weights no better: the stream itself has gone bad (by a
  broken producer, for example). Where the stream has only changed, learning soon does better on it than the reference.

A version that fails is published but does not go live. When versions fail for long, learning goes back to the
reference's weights. The tests are the usual ones for two rankers on the same queries (paired) and for a fall of a mean,
with a significance that chance reaches once in many thousand looks.

No I/O and no clock: time is counted in events.
"""

import math
from dataclasses import dataclass, field

from service.training.evaluation.measures import PairedSums
from service.training.gate.norms import Norms


@dataclass(frozen=True, slots=True)
class GateRules:
    """Numbers with their reasons; docs/decisions/gate.md says what they were measured on."""

    enabled: bool = True
    # a reference counts from so many learned events on: a younger model moves far, and gets worse before it gets better
    grown: int = 20_000
    young: int = 1_000  # from so many learned events on, a model twice as old as its reference takes a new one
    least: float = 200.0  # ranked events; with fewer, quality decides nothing
    window: float = 2_000.0  # half-life of the comparison, in ranked events
    recent: float = 300.0  # the same, for how predictable the stream is now
    usual: float = 10_000.0  # the same, for how predictable it usually is
    significance: float = 4.0  # standard errors; many, because the comparison is looked at many times a minute
    tolerance: float = 0.05  # share of the reference's NDCG; a smaller loss is ignored
    fall: float = 0.5  # share of the reference's usual NDCG; below it the stream counts as strange
    patience: int = 50_000  # events; a stream that is strange for so long counts as the usual one from then on
    advance: float = 10_000.0  # ranked events after which a good version becomes the reference
    revert: float = 1_000.0  # ranked events with failing versions after which learning goes back
    reopen: int = 10_000  # events after which a closed gate opens where no test fails, however few were ranked
    growth: float = 10.0  # times the reference's norms; beyond, weights explode
    moved: float = 0.5  # share of the reference's rows that one version may move by more than half their length


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done with a version."""

    why_not: str | None = None  # why it must not go live; None: it may
    advance: bool = False  # it is to become the reference
    go_back: bool = False  # learning should go back to the reference's weights, since versions have failed for long
    norms: Norms = field(default_factory=Norms)  # of its weights


class Gate:
    """For each submission call `observe` with its measurement, then `verdict`."""

    def __init__(self, rules: GateRules, *, opened: bool = True, events: int = 0) -> None:
        """opened: whether the last version was let through; until there is evidence, the same holds for the next ones.
        events: learned so far."""
        self.rules = rules
        self._reference_norms = Norms()
        self._sums, self._recent, self._usual = PairedSums(), PairedSums(), PairedSums()
        self._since_reference = 0.0
        self._strange_since: int | None = None  # events learned when the stream became strange; None: it is not
        self._failing = 0.0  # ranked events since versions began to fail
        self._opened = opened or not rules.enabled
        self._events = self._events_at_reference = self._events_when_closed = events

    def observe(self, measured: PairedSums, events: int) -> None:
        """Adds a comparison on events that had not been learned from. events: learned in all."""
        self._events = events
        rules = self.rules
        self._sums.add(measured, half_life=rules.window)
        self._recent.add(measured, half_life=rules.recent)
        if self._opened:
            self._usual.add(measured, half_life=rules.usual)
        self._since_reference += measured.n
        if not self._opened:
            self._failing += measured.n

    def verdict(self, norms: Norms) -> Verdict:
        """What is to be done with the version whose weights have these norms."""
        why_not = self._why_not(norms)
        if why_not is None:
            self._opened, self._failing = True, 0.0
        elif self._opened:
            self._opened, self._events_when_closed = False, self._events
        return Verdict(
            why_not=why_not,
            advance=why_not is None and self._reference_is_old(),
            go_back=not self._opened and self._failing >= self.rules.revert,
            norms=norms,
        )

    def _why_not(self, norms: Norms) -> str | None:
        if not self.rules.enabled:
            return None
        why = self._illness(norms) or self._worse() or self._strange()
        if why is None and not self._opened and self._knows_little():
            why = "too few events have been ranked since to tell whether it is good again"
        return why

    @property
    def _is_grown(self) -> bool:
        """Whether the reference has learned enough to be compared with."""
        return self._events_at_reference >= self.rules.grown

    def _knows_little(self) -> bool:
        return self._sums.n < self.rules.least and self._events - self._events_when_closed < self.rules.reopen

    def _reference_is_old(self) -> bool:
        outlearned = self._events >= max(self.rules.young, 2 * self._events_at_reference)
        return self._opened and (outlearned or self._since_reference >= self.rules.advance)

    def advanced(self, norms: Norms) -> None:
        """To be called when a version has become the reference."""
        self._reference_norms = norms
        self._sums, self._since_reference = PairedSums(), 0.0
        self._recent.difference = self._recent.squared = 0.0
        self._events_at_reference = self._events

    def reverted(self) -> None:
        """To be called when learning has gone back: the evidence so far is about weights that are gone."""
        self._sums, self._recent, self._failing = PairedSums(), PairedSums(), 0.0

    @property
    def difference(self) -> float | None:
        """NDCG at 20 of the present weights less the reference's, on the same events; None without any events."""
        return self._sums.mean if self._sums.n else None

    def _illness(self, norms: Norms) -> str | None:
        rules, good = self.rules, self._reference_norms
        if not norms.finite:
            return "the weights are not finite"
        for what, now, then in (
            ("item rows", norms.row_norm, good.row_norm),
            ("the network's parameters", norms.dense_norm, good.dense_norm),
        ):
            if then > 0 and now > rules.growth * then:
                return f"{what} have grown from a norm of {then:.3g} to {now:.3g}"
        if norms.rows_moved > rules.moved and self._is_grown:
            return f"{norms.rows_moved:.0%} of the item rows moved by more than half their length at once"
        return None

    def _worse(self) -> str | None:
        sums, rules = self._sums, self.rules
        if sums.n < rules.least or not self._is_grown:
            return None
        lost = -sums.mean
        if lost <= rules.tolerance * sums.reference or lost <= rules.significance * sums.standard_error:
            return None
        return (
            f"NDCG@20 is {sums.reference - lost:.4f} where the reference's is {sums.reference:.4f}, "
            f"on the same {sums.n:.0f} events"
        )

    def _strange(self) -> str | None:
        recent, usual, rules = self._recent, self._usual, self.rules
        strange = (
            recent.n >= rules.least
            and usual.n >= 5 * rules.least
            and self._is_grown
            and recent.reference < rules.fall * usual.reference
            # an NDCG is between 0 and 1, so its variance is at most its mean
            and usual.reference - recent.reference > rules.significance * math.sqrt(usual.reference / recent.n)
            and recent.mean <= rules.significance * recent.standard_error  # nor does learning do better
        )
        if not strange:
            self._strange_since = None
            return None
        if self._strange_since is None:
            self._strange_since = self._events
        if self._events - self._strange_since >= rules.patience:
            self._usual, self._strange_since = PairedSums(), None
            return None
        return (
            f"the stream has changed: even known good weights reach an NDCG@20 of {recent.reference:.4f} on it "
            f"where {usual.reference:.4f} was usual"
        )
