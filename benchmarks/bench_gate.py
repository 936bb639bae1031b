"""Does the gate leave a good stream alone, and what does it save when a stream goes bad?

Replays a real stream into a learner, a version every few batches, with the gate as in the trainer. Then once more with
poison in the middle (a broken producer: every event names a random item), with the gate and without.
"""

import argparse
import dataclasses
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from consumers.decode import DecodeRules
from consumers.file_reading import open_reading
from consumers.micro_batch import MicroBatch
from model_store.changes import Changes
from model_store.weights import State
from service.model.registry import NEW_MODEL
from service.training.effort import FULL
from service.training.evaluation.file_batches import micro_batches
from service.training.gate.gate import Gate, GateRules
from service.training.gate.norms import NormTracker
from service.training.learner import Learner
from service.training.reference import Reference

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
BATCH, BATCHES_A_VERSION = 256, 4


def poisoned(batches: Iterator[MicroBatch], start: int, n: int) -> Iterator[MicroBatch]:
    """From batch `start` on, `n` batches whose events name items at random, of all that came before."""
    rng = np.random.default_rng(0)
    known: dict[str, None] = {}
    for number, batch in enumerate(batches):
        known.update(dict.fromkeys(batch.items))
        if start <= number < start + n:
            ids = list(known)
            items = tuple(ids[i] for i in rng.choice(len(ids), min(len(ids), len(batch)), replace=False))
            item = rng.integers(len(items), size=len(batch)).astype(np.int32)
            batch = dataclasses.replace(batch, items=items, item=np.where(batch.item < 0, -1, item))
        yield batch


@dataclasses.dataclass
class Outcome:
    batches: int = 0
    versions: int = 0
    held_back: int = 0
    reverts: int = 0
    first_held: int | None = None  # the batch at which
    reasons: list[str] = dataclasses.field(default_factory=list)
    ndcg: list[float] = dataclasses.field(default_factory=list)  # of each batch, by the weights a reader would have
    seconds: float = 0.0


def run(batches: Iterator[MicroBatch], rules: GateRules) -> Outcome:
    learner = Learner(NEW_MODEL, evaluate_sample=32)
    reference, state, outcome = Reference(learner.recommender), State(), Outcome()
    gate, norms = Gate(rules), NormTracker(reference.traits.learned)
    since, good = Changes(reference.owns), State()
    events, paired, reverted, go_back = 0, None, False, False
    first = learner.snapshot()
    learner.drain()
    norms.measure(state, first)
    for each in (state, good):
        each.apply(first)
    reference.apply(first)
    began = time.perf_counter()
    for number, batch in enumerate(batches, 1):
        with reference.borrowed() as borrowed:
            result = learner.learn(batch, FULL, borrowed)
        events += result.n_events
        if result.ranked.n:
            outcome.ndcg.append(result.ranked.mean_ndcg)
        if paired is None:
            paired = result.paired
        else:
            paired.add(result.paired)
        if go_back and not reverted:
            learner.reset_weights(good)
            outcome.reverts += 1
            reverted = True
        outcome.batches = number
        if number % BATCHES_A_VERSION:
            continue
        update = learner.drain()
        measured = norms.measure(state, update)
        state.apply(update)
        since.add(update)
        if reverted:
            gate.reverted()
        gate.observe(paired, events)
        verdict = gate.verdict(measured)
        why, go_back = verdict.why_not, verdict.go_back
        outcome.versions += 1
        paired, reverted = None, False
        if why is not None:
            outcome.held_back += 1
            outcome.first_held = outcome.first_held or number
            if why.split()[0] not in {r.split()[0] for r in outcome.reasons}:
                outcome.reasons.append(f"batch {number}: {why}")
        elif verdict.advance:
            reference.apply(since.take(state))
            good = State()
            good.apply(state.snapshot())
            gate.advanced(measured)
            norms.settle(state.snapshot())
    outcome.seconds = time.perf_counter() - began
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=Path, default=DATA / "movietweetings.events.jsonl.gz")
    parser.add_argument("--batches", type=int, default=480)
    args = parser.parse_args()
    if not args.events.exists():
        print(f"no {args.events.name}: give a stream with --events")
        return

    def stream() -> Iterator[MicroBatch]:
        rules = DecodeRules()
        reading = open_reading(args.events, "events", rules)
        return islice(micro_batches(reading, list(rules.event_types), BATCH), args.batches)

    gated, free = GateRules(), GateRules(enabled=False)
    clean = run(stream(), gated)
    print(f"clean: {clean.held_back} of {clean.versions} versions held back, {clean.reverts} reverts {clean.reasons}")
    there = clean.batches
    middle, n = there // 2, there // 5
    for name, rules in (("with the gate", gated), ("without", free)):
        found = run(poisoned(stream(), middle, n), rules)
        after = slice(middle + n, middle + 2 * n)
        print(
            f"poisoned from batch {middle} to {middle + n}, {name}: first held back at {found.first_held}, "
            f"{found.held_back} of {found.versions} held back, {found.reverts} reverts; NDCG@20 "
            f"before {np.mean(found.ndcg[middle - n : middle]):.4f}, after {np.mean(found.ndcg[after]):.4f} "
            f"(clean {np.mean(clean.ndcg[after]):.4f}) {found.reasons[:1]}"
        )


if __name__ == "__main__":
    main()
