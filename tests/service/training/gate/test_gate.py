"""What may go live: the rules one by one, and a poisoned stream through the whole trainer."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from consumers.micro_batch import MicroBatch
from consumers.records import OffsetRange
from model_store.chain import load
from model_store.memory_store import MemoryStore
from model_store.store import CHALLENGER
from model_store.weights import State
from service.model.recommender import Recommender
from service.training.evaluation.measures import PairedSums
from service.training.gate.gate import Gate, GateRules, Verdict
from service.training.gate.keeper import REFERENCE
from service.training.gate.norms import Norms
from tests.service.model.configs import small
from tests.service.training.runs import RULES, Run, manifests
from tests.service.training.streams import Event, clicks, micro_batch, world_of_classes

ROWS, OUT = "item/row", "network/out_weight"  # what gradients change

GROWN = GateRules(grown=0)
GOOD = Norms(row_norm=1.0, dense_norm=3.0)


def measured(n: int, ours: float, theirs: float, seed: int = 0) -> PairedSums:
    """`n` events of which so large a share was hit at the head of either list, independently."""
    rng = np.random.default_rng(seed)
    miss = 1 << 40
    return PairedSums.of(np.where(rng.random(n) < ours, 0, miss), np.where(rng.random(n) < theirs, 0, miss))


def looks(gate: Gate, n: int, ours: float, theirs: float, events: int = 5000) -> list[str | None]:
    """The verdicts of `n` versions with 32 ranked events each."""
    verdicts = []
    for look in range(n):
        gate.observe(measured(32, ours, theirs, seed=look), events)
        verdicts.append(gate.verdict(GOOD).why_not)
    return verdicts


def test_a_version_that_predicts_as_well_passes() -> None:
    gate = Gate(GROWN)
    gate.observe(measured(5000, 0.3, 0.3), 5000)
    assert gate.verdict(GOOD).why_not is None
    gate.observe(measured(5000, 0.4, 0.3), 10_000)
    assert gate.verdict(GOOD).why_not is None
    assert gate.difference is not None
    assert gate.difference > 0


def test_without_a_comparison_there_is_no_difference() -> None:
    gate = Gate(GROWN)
    assert gate.difference is None
    gate.observe(measured(32, 0.3, 0.3), 32)
    assert gate.difference is not None
    gate.advanced(GOOD)
    assert gate.difference is None


def test_a_version_that_predicts_worse_on_the_same_events_does_not() -> None:
    gate = Gate(GROWN)
    gate.observe(measured(5000, 0.2, 0.3), 5000)
    why = gate.verdict(GOOD).why_not
    assert why is not None
    assert why.startswith("NDCG@20 is 0.")
    assert "on the same" in why


@pytest.mark.parametrize(
    ("events", "ours", "theirs"),
    [(100, 0.0, 0.5), (5000, 0.295, 0.3)],
    ids=["too few to tell", "too little a loss"],
)
def test_what_chance_or_a_trifle_explains_is_let_through(events: int, ours: float, theirs: float) -> None:
    gate = Gate(GROWN)
    gate.observe(measured(events, ours, theirs), events)
    assert gate.verdict(GOOD).why_not is None


def test_a_young_model_may_get_worse_before_it_gets_better() -> None:
    gate = Gate(GateRules(grown=20_000))
    gate.observe(measured(5000, 0.1, 0.3), 5000)
    assert gate.verdict(GOOD).why_not is None


def test_chance_alone_does_not_shut_the_gate() -> None:
    """Two equal rankers, looked at ten thousand times."""
    rng = np.random.default_rng(3)
    gate, shut = Gate(GROWN), 0
    for look in range(10_000):
        gate.observe(measured(32, 0.1, 0.1, seed=int(rng.integers(1 << 30))), 100 * look)
        verdict = gate.verdict(GOOD)
        shut += verdict.why_not is not None
        if verdict.advance:
            gate.advanced(GOOD)
    assert shut <= 20


def test_a_stream_that_nobody_can_predict_any_more_shuts_it_and_patience_opens_it() -> None:
    gate = Gate(dataclasses.replace(GROWN, patience=20_000))
    assert looks(gate, 160, 0.3, 0.3) == [None] * 160
    reasons = looks(gate, 20, 0.01, 0.01, events=6000)
    shut = [why for why in reasons if why is not None]
    assert len(shut) >= 5
    assert shut[0].startswith("the stream has changed: even known good weights")
    assert looks(gate, 1, 0.01, 0.01, events=20_000)[0] is not None
    assert looks(gate, 1, 0.01, 0.01, events=27_000) == [None]


def test_a_stream_that_has_moved_on_and_is_being_learned_is_followed() -> None:
    gate = Gate(GROWN)
    looks(gate, 160, 0.3, 0.3)
    assert looks(gate, 40, 0.25, 0.01, events=6000)[-1] is None


@pytest.mark.parametrize(
    ("norms", "says"),
    [
        (Norms(finite=False), "not finite"),
        (Norms(row_norm=11.0, dense_norm=3.0), "item rows have grown from a norm of 1 to 11"),
        (Norms(row_norm=1.0, dense_norm=31.0), "the network's parameters have grown"),
        (Norms(row_norm=1.0, dense_norm=3.0, rows_moved=0.6), "60% of the item rows moved"),
    ],
)
def test_sick_weights_are_held_back(norms: Norms, says: str) -> None:
    gate = Gate(GROWN)
    gate.advanced(GOOD)
    why = gate.verdict(norms).why_not
    assert why is not None
    assert says in why


@pytest.mark.parametrize("opened", [True, False], ids=["open", "shut"])
def test_it_is_off_when_told_so(opened: bool) -> None:
    """Whatever it was when the last run ended: nothing is held back, and learning does not go back."""
    gate = Gate(dataclasses.replace(GROWN, enabled=False), opened=opened)
    gate.observe(measured(5000, 0.0, 0.5), 5000)
    verdict = gate.verdict(Norms(finite=False))
    assert (verdict.why_not, verdict.go_back) == (None, False)


def test_failing_for_long_asks_for_a_return_and_then_for_evidence() -> None:
    gate = Gate(GROWN)
    gate.observe(measured(5000, 0.1, 0.3), 5000)
    verdict = gate.verdict(GOOD)
    assert verdict.why_not is not None
    assert not verdict.go_back
    gate.observe(measured(1000, 0.1, 0.3), 6000)
    verdict = gate.verdict(GOOD)
    assert verdict.why_not is not None
    assert verdict.go_back
    gate.reverted()
    verdict = gate.verdict(GOOD)
    assert not verdict.go_back
    assert verdict.why_not == "too few events have been ranked since to tell whether it is good again"
    gate.observe(measured(300, 0.3, 0.3), 7000)
    assert gate.verdict(GOOD).why_not is None


def test_without_any_ranking_it_opens_again_after_so_many_events() -> None:
    gate = Gate(GROWN, opened=False, events=50_000)
    assert gate.verdict(GOOD).why_not is not None
    gate.observe(PairedSums(), 59_999)
    assert gate.verdict(GOOD).why_not is not None
    gate.observe(PairedSums(), 60_000)
    assert gate.verdict(GOOD).why_not is None


def test_a_good_version_becomes_the_reference_in_time() -> None:
    gate = Gate(GROWN, events=100_000)
    gate.observe(measured(9_999, 0.3, 0.3), 110_000)
    assert gate.verdict(GOOD) == Verdict(norms=GOOD)
    gate.observe(measured(1, 1.0, 1.0), 110_001)
    assert gate.verdict(GOOD) == Verdict(advance=True, norms=GOOD)
    gate.advanced(GOOD)
    assert not gate.verdict(GOOD).advance
    gate.observe(PairedSums(), 220_002)  # twice what the reference has learned
    assert gate.verdict(GOOD).advance


# --- a poisoned stream ---

POISON_RULES = GateRules(grown=2_000, least=100, advance=1_500, revert=400, usual=3_000)
CLASSES = 10
LEARNED = small(dim=16, negatives=64, replay_capacity=2000, replay_recent=500, half_lives=(200.0, 2000.0))


def garbage(n: int, seed: int) -> list[Event]:
    """What a broken producer sends: the users there are, and items at random."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(300, size=n), rng.integers(CLASSES * 10, size=n)
    return clicks([(f"u{u}", f"c{i // 10}-{i % 10}") for u, i in zip(user, item, strict=True)])


def fed(events: Sequence[Event], size: int = 100) -> list[MicroBatch]:
    return [
        dataclasses.replace(
            micro_batch(events[at : at + size], first_key=at + 1), ranges=(OffsetRange("events", 0, at, at + size),)
        )
        for at in range(0, len(events), size)
    ]


def taste_kept(state: State, users: int = 200) -> float:
    """The share of a list's first ten that is of the class a user's history is of, by the weights of a version."""
    model, rng = Recommender(LEARNED), np.random.default_rng(1)
    model.apply(state.snapshot())
    classes = rng.integers(CLASSES, size=users)
    histories = [model.rows_of([f"c{c}-{i}" for i in rng.integers(10, size=5)]) for c in classes]
    lists, _ = model.top_k(np.array(histories), 10)
    kept: float = np.mean(
        [[model.ids[row].startswith(f"c{c}-") for row in rows] for c, rows in zip(classes, lists, strict=True)]
    )
    return kept


@pytest.mark.slow
def test_a_poisoned_stream_does_not_reach_readers() -> None:
    good, bad, after = world_of_classes(8_000, 0), garbage(12_000, 1), world_of_classes(6_000, 2)
    batches = fed([*good, *bad, *after])
    seen: dict[str, Any] = {}

    def through(gate: GateRules) -> tuple[MemoryStore, Run]:
        store = MemoryStore()
        run = Run(store, rules=dataclasses.replace(RULES, gate=gate), config=LEARNED)

        def look() -> None:
            seen["live"], seen["newest"], seen["aliases"] = store.live(), store.newest(), store.aliases()
            seen["taste"] = taste_kept(load(store, store.live() or 0))
            seen["health"] = run.health.report()[1]["checks"]

        poisoned = len(good) // 100 + len(bad) // 100
        run.go([*batches[:poisoned], look, *batches[poisoned:]])
        return store, run

    store, free = through(dataclasses.replace(POISON_RULES, enabled=False))
    ruined = seen["taste"]
    assert seen["live"] == seen["newest"]
    assert free.metric("versions_held_back_total") == 0

    store, run = through(POISON_RULES)
    assert seen["live"] < seen["newest"]
    assert seen["aliases"]["champion"] == seen["live"]
    assert seen["aliases"][CHALLENGER] == seen["newest"]
    assert seen["aliases"][REFERENCE] <= seen["live"]
    assert "do not go live" in seen["health"]["gate"]
    assert seen["taste"] > 0.95  # seen: .98 with the gate, .56 without
    assert ruined < 0.75
    assert run.metric("versions_held_back_total") > 0
    assert run.metric("weights_reset_total") > 0
    assert any("stream has changed" in entry.reason for entry in store.log(1000) if entry.alias == CHALLENGER)
    # nothing is lost by it, and once the stream is good again the newest version is live
    assert manifests(store)[-1].events_trained == len(good) + len(bad) + len(after)
    assert store.live() == store.newest()
    assert CHALLENGER not in store.aliases()
    assert run.metric("gate_open") == 1
