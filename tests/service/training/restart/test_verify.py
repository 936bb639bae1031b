"""A version is what its record and its events make of it, wherever one begins; and one bit that differs is found."""

import dataclasses
import functools
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.micro_batch import MicroBatch
from consumers.recorded import EventsGone
from consumers.records import OffsetRange
from model_store.chain import ancestors, updates_between
from model_store.errors import BrokenChain, DamagedBlob, DamagedManifest, NoSuchVersion
from model_store.memory_store import MemoryStore
from model_store.weights import Array, Rows, State, Update
from service.process import Fatal
from service.training.configuration import config_of
from service.training.gate.keeper import REFERENCE
from service.training.restart.verify import first_difference, route_to
from service.training.trainer import SKIPPED_IN_A_ROW
from tests.service.training.runs import (
    RULES,
    Killed,
    Run,
    Step,
    batches,
    configured,
    doctor,
    kill,
    manifests,
    prove,
    rejects,
    remembered,
)
from tests.service.training.streams import TYPES, micro_batch, random_events

FED = batches(20)
# a rating is learned from so strongly that no gradient is finite, and its batch is skipped, however often it is learned
EXPLOSIVE = configured(event_weights={kind: 1e30 if kind == "rating" else 1.0 for kind in TYPES})
OFTEN = dataclasses.replace(RULES, chain_limit=2)  # a snapshot after two deltas


def explosive(batch: MicroBatch) -> MicroBatch:
    return dataclasses.replace(batch, type=np.full(len(batch), TYPES.index("rating"), np.int16))


def change(store: MemoryStore, version: int, **fields: object) -> None:
    """Another manifest under the number of a version."""
    store.tamper(manifest=(version, store.manifest(version).model_copy(update=fields).to_json()))


def assert_proven(store: MemoryStore, fed: Sequence[MicroBatch] = FED, start: int | None = None) -> None:
    for version in store.versions():
        proof = prove(store, version, fed, 0 if start == 0 else None)
        assert (proof.difference, proof.departs_at) == (None, None), version


# -- where it begins ---------------------------------------------------------------------------------------------------


def ways(store: MemoryStore, start: int | None = None) -> dict[int, tuple[int | None, list[int]]]:
    """version -> where its proof begins, and the versions on the way."""
    found = {}
    for version in store.versions():
        chosen = route_to(store, version, start)
        found[version] = (
            None if chosen.base is None else chosen.base.version,
            [manifest.version for manifest in chosen.manifests],
        )
    return found


def test_it_begins_with_the_nearest_snapshot_that_leaves_something_to_learn() -> None:
    store = MemoryStore()
    Run(store, rules=OFTEN).go(FED[:4])
    assert [m.kind[0] for m in manifests(store)] == ["s", "d", "d", "s", "d", "d", "s"]
    assert ways(store) == {
        1: (None, [1]),
        2: (1, [2]),
        3: (1, [2, 3]),
        4: (1, [2, 3, 4]),  # the same once more, written out: from itself nothing would be proved
        5: (4, [5]),
        6: (4, [5, 6]),
        7: (4, [5, 6, 7]),
    }
    assert_proven(store)
    proof = prove(store, 7, FED)
    events = [manifest.events_trained for manifest in manifests(store)]
    assert proof.events == events[6] - events[3] > 0
    assert proof.tables > 20
    assert proof.values > 1000


def test_it_begins_with_what_one_says() -> None:
    store = MemoryStore()
    Run(store, rules=OFTEN).go(FED[:4])
    assert_proven(store, start=0)
    for start in (1, 2, 3, 4, 5):  # a delta will do: it is a checkpoint
        chosen = route_to(store, 6, start)
        assert chosen.base is not None
        assert (chosen.base.version, chosen.manifests[0].version) == (start, start + 1)
        assert prove(store, 6, FED, start).difference is None
    for start in (6, 7, 99):
        with pytest.raises(Fatal, match=f"version 6 cannot be made again from {start}: that is no checkpoint on the"):
            route_to(store, 6, start)


def test_a_version_that_is_not_there() -> None:
    with pytest.raises(NoSuchVersion, match="version 3 is not in the store"):
        route_to(MemoryStore(), 3)


def release(store: MemoryStore) -> None:
    """Version 1 is the gate's reference for long, and would stay."""
    store.move(store.versions()[-1], "for the test", alias=REFERENCE)


@pytest.mark.parametrize("keep", [1, 2])
def test_retired_versions_on_the_way_are_on_record(keep: int) -> None:
    store = MemoryStore()
    rules = dataclasses.replace(OFTEN, keep_snapshots=keep, grace_s=0.0)
    Run(store, rules=rules).go([*FED[:9], lambda: release(store), FED[9]])
    assert 1 not in store.versions()
    assert_proven(store)
    assert_proven(store, start=0)
    newest = store.newest() or 0
    assert [manifest.version for manifest in ancestors(store, newest)] == list(range(newest, 0, -1))
    base = route_to(store, store.versions()[0]).base
    assert base is None  # the snapshots before the oldest one that is left are gone, so it is made from nothing


def test_a_version_whose_past_is_off_the_record_cannot_be_proved() -> None:
    store = MemoryStore()
    rules = dataclasses.replace(OFTEN, keep_snapshots=1, grace_s=0.0)
    Run(store, rules=rules).go([*FED[:9], lambda: release(store), FED[9]])
    store._retired.pop(3)
    oldest = store.versions()[0]
    with pytest.raises(
        Fatal, match=r"how versions before 4 were made is not on record any more, and no snapshot"
    ) as no:
        route_to(store, oldest)
    assert "\n" not in str(no.value)
    with pytest.raises(Fatal, match="cannot be made again from 0"):
        route_to(store, oldest, 0)


# -- what learning may depend on ---------------------------------------------------------------------------------------


def test_replay_that_changes_is_recorded() -> None:
    store = MemoryStore()
    for n, replay in enumerate((0, 2, 1)):
        Run(store, replay=replay).go(FED[2 * n : 2 * n + 2])
    assert [batch.replay for manifest in manifests(store) for batch in manifest.batches] == [0, 0, 2, 2, 1, 1]
    assert_proven(store)
    assert_proven(store, start=0)


def test_several_batches_in_a_version_and_none_at_all() -> None:
    store = MemoryStore()
    run = Run(store)
    run.publisher._rules = dataclasses.replace(RULES, interval_s=3600.0)
    run.go(FED[:4])
    Run(store).go([rejects(80, 90)])
    assert [len(manifest.batches) for manifest in manifests(store)] == [0, 4, 1, 0]
    assert_proven(store, [*FED, rejects(80, 90)])


def test_limits_that_change_from_run_to_run_are_recorded() -> None:
    store = MemoryStore()
    for n, limit in enumerate((None, 32, 24, None)):
        Run(store, config=configured(max_items=limit, max_users=limit)).go(FED[4 * n : 4 * n + 4])
    assert [config_of(m).limits.max_items for m in manifests(store)[4::5]] == [None, 32, 24, None]
    assert_proven(store)
    assert_proven(store, start=0)
    change(store, 8, config={**store.manifest(8).config, "limits": {"max_items": 1000}})
    assert prove(store, 9, FED).departs_at == 8


def reset_at(store: MemoryStore, version: int) -> int | None:
    return store.manifest(version).batches[0].weights_of_version


def test_weights_that_were_reset() -> None:
    """To a version on the way, to the one it begins with, and to one before that."""
    store = MemoryStore()
    fed = [*FED[:4], *map(explosive, FED[4 : 4 + SKIPPED_IN_A_ROW]), *FED[7:10]]
    Run(store, config=EXPLOSIVE, replay=0).go(fed)
    skipped = [batch.skipped for manifest in manifests(store) for batch in manifest.batches]
    assert skipped == [False] * 4 + [True] * 3 + [False] * 3
    assert reset_at(store, 8) == 4  # the one before the last batch that was learned
    assert_proven(store, fed)
    for start in (0, 1, 3, 4, 5, 7):
        assert prove(store, 11, fed, start).difference is None, start
    # only the record says that they were
    batch = store.manifest(8).batches[0].model_copy(update={"weights_of_version": None})
    change(store, 8, batches=(batch,))
    proof = prove(store, 11, fed)
    assert proof.difference is not None
    assert proof.departs_at == 8


def test_a_reset_to_a_version_that_is_retired_is_proved_from_before_it() -> None:
    store = MemoryStore()
    fed = [*FED[:4], *map(explosive, FED[4 : 4 + SKIPPED_IN_A_ROW]), *FED[7:9]]
    Run(store, config=EXPLOSIVE, replay=0, rules=OFTEN).go(fed)
    at = next(m.version for m in manifests(store) if m.batches and m.batches[0].weights_of_version)
    target = reset_at(store, at) or 0
    between = [m.version for m in manifests(store) if m.kind == "snapshot" and target < m.version < at]
    assert between
    base = route_to(store, at).base
    assert base is not None
    assert base.version == between[-1]
    assert_proven(store, fed)
    chain = [target, *(m.version for m in manifests(store) if m.kind == "delta" and m.version < between[0])]
    store.delete(set(chain))
    base = route_to(store, at).base
    assert base is not None
    assert base.version < target
    assert prove(store, at, fed).difference is None
    with pytest.raises(BrokenChain, match=f"version {target}: the manifest of version {target} is missing"):
        prove(store, at, fed, between[-1])


def test_between_checkpoints_weights_go_back_to_a_checkpoint() -> None:
    """The optimizer's sums of a version that is none are not known."""
    store = MemoryStore()
    fed = [*FED[:4], *map(explosive, FED[4 : 4 + SKIPPED_IN_A_ROW]), *FED[7:10]]
    Run(store, config=EXPLOSIVE, replay=0, rules=dataclasses.replace(RULES, checkpoint_interval_s=3600.0)).go(fed)
    assert [m.version for m in manifests(store) if m.checkpoint] == [1]
    assert reset_at(store, 8) == 1
    assert_proven(store, fed)


def test_a_version_that_is_no_checkpoint_is_proved_in_its_weights() -> None:
    store = MemoryStore()
    Run(store, rules=dataclasses.replace(RULES, checkpoint_interval_s=3600.0)).go(FED[:4])
    whole = MemoryStore()
    Run(whole).go(FED[:4])
    weights, everything = prove(store, 5, FED), prove(whole, 5, FED)
    assert weights.difference is everything.difference is None
    assert weights.events == everything.events
    assert 0 < weights.tables < everything.tables
    with pytest.raises(Fatal, match="version 5 cannot be made again from 3: that is no checkpoint"):
        route_to(store, 5, 3)
    doctor(store, 5, "clock")
    assert prove(store, 5, FED).difference is not None


def test_a_run_that_goes_on_between_checkpoints_leaves_no_gap() -> None:
    """What was learned again is in the first checkpoint after it."""
    store = MemoryStore()
    sparse = dataclasses.replace(RULES, checkpoint_interval_s=3600.0)
    Run(store, rules=sparse).go(FED[:4])
    Run(store, rules=sparse, log=remembered(*FED)).go(FED[4:6])
    first = store.manifest(6)
    assert (first.kind, first.parent, first.checkpoint) == ("delta", 5, True)
    assert_proven(store)


# -- what is found -----------------------------------------------------------------------------------------------------


NUMBER = r"-?[\d.]+(e-?\d+)?"


@pytest.mark.parametrize(
    ("name", "row", "says"),
    [
        ("item/row", 7, rf"item/row row 7 \('i\d+'\): {NUMBER} was published at \[0\], the events make {NUMBER}"),
        ("item/popularity", 3, rf"item/popularity row 3 \('i\d+'\): {NUMBER} was published at \[0\], the .* {NUMBER}"),
        ("item/id", 2, r"item/id row 2 \('i\d+'\): 'i\d+!' was published, the events make 'i\d+'"),
        ("item/listable", 5, r"item/listable row 5 \('i\d+'\): 0 was published, the events make 1"),
        ("trainer/item/adagrad", 4, rf"trainer/item/adagrad row 4 \('i\d+'\): {NUMBER} was published, the .* {NUMBER}"),
        ("trainer/user/id", 0, r"trainer/user/id row 0: 'u\d+!' was published, the events make 'u\d+'"),
        ("trainer/user/count", 1, r"trainer/user/count row 1: \d+ was published at \[0\], the events make \d+"),
        ("trainer/replay/target", 9, r"trainer/replay/target row 9: \d+ was published, the events make \d+"),
        ("network/out_weight", 3, rf"network/out_weight: {NUMBER} was published at \[3, 0\], the events make {NUMBER}"),
        ("clock", 0, r"clock: \d+ was published, the events make \d+"),
        ("trainer/network/second", 6, rf"trainer/network/second: {NUMBER} was published at \[6\], the .* {NUMBER}"),
    ],
)
def test_one_bit_is_found_and_named(name: str, row: int, says: str) -> None:
    store = MemoryStore()
    Run(store, rules=dataclasses.replace(RULES, chain_limit=3)).go(FED[:3])
    assert [m.kind for m in manifests(store)][-2:] == ["delta", "snapshot"]
    doctor(store, 5, name, row)
    proof = prove(store, 5, FED)
    assert re.fullmatch(says, proof.difference or ""), proof.difference
    published, again = re.split(
        r" was published(?: at \[.*\])?, the events make ", (proof.difference or "").split(": ")[1]
    )
    assert published != again
    assert proof.departs_at is None  # versions on the way are as they were
    assert prove(store, 4, FED).difference is None


def test_the_first_version_that_departs_is_named() -> None:
    store = MemoryStore()
    Run(store).go(FED[:6])
    doctor(store, 4, "item/row", rows_of_delta(store, 4, "item/row")[0])
    for version, departs_at in ((3, None), (4, 4), (5, 4), (7, 4)):
        assert prove(store, version, FED).departs_at == departs_at
    assert prove(store, 4, FED).difference is not None
    # events that are not those it learned from: every version differs from there on
    other = [*FED[:1], dataclasses.replace(batches(2, seed=1)[1], ranges=FED[1].ranges), *FED[2:]]
    proof = prove(store, 7, other)
    assert (proof.departs_at, proof.difference is None) == (3, False)


def rows_of_delta(store: MemoryStore, version: int, name: str) -> list[int]:
    ((_, update),) = updates_between(store, version - 1, version)
    rows: list[int] = update.tables[name].index.tolist()
    return rows


def test_what_a_manifest_claims_beside_its_weights_is_held_against_its_batches() -> None:
    store = MemoryStore()
    Run(store).go(FED[:3])
    there = store.manifest(4)
    change(store, 4, events_trained=there.events_trained + 1)
    assert prove(store, 4, FED).difference == (
        f"it says that {there.events_trained + 1} events were learned, and there are {there.events_trained}"
    )
    change(store, 4, events_trained=there.events_trained, trained_through={"events": {"0": 80}})
    assert prove(store, 4, FED).difference == (
        "it says trained through {'events': {'0': 80}}, and its batches go to {'events': {'0': 60}}"
    )


def test_batches_that_do_not_follow_on_each_other_are_a_broken_record() -> None:
    store = MemoryStore()
    Run(store).go(FED[:3])
    change(store, 4, batches=store.manifest(3).batches)
    with pytest.raises(BrokenChain, match=r"version 4: events\[0\]: a batch from 20, but everything before 40"):
        prove(store, 4, FED)


def test_a_manifest_on_the_way_that_cannot_be_read() -> None:
    store = MemoryStore()
    Run(store).go(FED[:3])
    store.tamper(manifest=(3, b"{"))
    with pytest.raises(DamagedManifest, match="version 3: manifest"):
        route_to(store, 4)


def test_blobs_that_are_gone_are_named() -> None:
    store = MemoryStore()
    Run(store).go(FED[:3])
    store.tamper(blob=(store.manifest(1).blobs["trainer/0"].key, None))
    with pytest.raises(DamagedBlob, match=r"version 1: blob trainer/0 .* is missing"):
        prove(store, 4, FED)


def test_events_that_have_expired_are_named() -> None:
    store = MemoryStore()
    Run(store, rules=OFTEN).go(FED[:4])
    with pytest.raises(EventsGone, match="'events', 0, 0, 20"):
        prove(store, 3, FED[1:])
    assert prove(store, 6, FED[2:]).difference is None  # the nearest snapshot is after them


def test_a_version_of_another_schema_of_settings() -> None:
    store = MemoryStore()
    Run(store).go(FED[:1])
    change(store, 1, config={**store.manifest(1).config, "momentum": 0.9})
    with pytest.raises(Fatal, match="made by another release than this one: momentum is not known"):
        prove(store, 2, FED)


# -- the comparison ----------------------------------------------------------------------------------------------------


def made(**names: "Array | list[str]") -> Update:
    """Tables a_*, and tensors t_*."""
    tables = {
        n.replace("_", "/"): Rows(np.arange(len(v)), v, len(v)) for n, v in names.items() if not n.startswith("t_")
    }
    return Update(True, tables, {n: v for n, v in names.items() if n.startswith("t_") and not isinstance(v, list)})


@pytest.mark.parametrize(
    ("published", "again", "says"),
    [
        ({"a_x": np.zeros(3)}, {}, "a/x: published, and the events make no such table"),
        ({}, {"a_x": np.zeros(3)}, "a/x: the events make it, and it was not published"),
        ({}, {"t_x": np.zeros(3)}, "t_x: the events make it, and it was not published"),
        ({"t_x": np.zeros(3)}, {}, "t_x: published, and the events make no such tensor"),
        (
            {"a_x": np.zeros(3)},
            {"a_x": np.zeros(4)},
            "a/x: 3 rows of float64[] were published, the events make 4 rows of float64[]",
        ),
        (
            {"a_x": np.zeros((0, 2))},
            {"a_x": np.zeros((0, 3))},
            "a/x: 0 rows of float64[2] were published, the events make 0 rows of float64[3]",
        ),
        (
            {"a_x": ["0.0"]},
            {"a_x": np.zeros(1)},
            "a/x: 1 rows of strings were published, the events make 1 rows of float64[]",
        ),
        (
            {"t_x": np.zeros(2)},
            {"t_x": np.zeros(2, np.int64)},
            "t_x: float64[2] was published, the events make int64[2]",
        ),
        ({"a_x": np.zeros(2)}, {"a_x": np.array([0.0, -0.0])}, "a/x row 1: 0.0 was published, the events make -0.0"),
        ({"t_x": np.array(1.0)}, {"t_x": np.array(1.5)}, "t_x: 1.0 was published, the events make 1.5"),
        ({"a_x": np.eye(2)}, {"a_x": np.ones((2, 2))}, "a/x row 0: 0.0 was published at [1], the events make 1.0"),
        ({"a_x": np.array([np.nan])}, {"a_x": np.array([np.nan])}, None),
        ({}, {"trainer_x": np.zeros(1)}, None),  # a version that is no checkpoint does not have it
    ],
)  # fmt: skip
def test_the_first_difference_in_words(published: dict[str, Array], again: dict[str, Array], says: str | None) -> None:
    state = State()
    state.apply(made(**again))
    assert first_difference(made(**published), state) == says


# -- whatever happens --------------------------------------------------------------------------------------------------


Life = tuple[list[tuple[int, bool]], int, bool]
"""Of a trainer: its batches (how many events, and whether a version may follow), its replay, and whether few versions
are checkpoints."""

LIVES = st.lists(
    st.tuples(st.lists(st.tuples(st.integers(1, 20), st.booleans()), max_size=5), st.integers(0, 2), st.booleans()),
    min_size=1,
    max_size=4,
)
EVENTS = random_events(400, 5)


def batch_at(offset: int, size: int) -> MicroBatch:
    """Of a stream in which each thirteenth event is the one before once more."""
    keys = [at - (at % 13 == 12) for at in range(offset, offset + size)]
    batch = micro_batch([EVENTS[key] for key in keys], keys=[key + 1 for key in keys])
    return dataclasses.replace(batch, ranges=(OffsetRange("events", 0, offset, offset + size),))


@settings(max_examples=40, deadline=None)
@given(LIVES, st.integers(1, 5), st.integers(1, 3))
def test_every_version_is_proved_whatever_was_killed(lives: list[Life], chain_limit: int, keep: int) -> None:
    """Each life but the last is killed at its end, with what it has not published; batches are cut anew in the next."""
    store, fed, at = MemoryStore(), list[MicroBatch](), 0
    for number, (life, replay, sparse) in enumerate(lives, 1):
        rules = dataclasses.replace(
            RULES,
            chain_limit=chain_limit,
            keep_snapshots=keep,
            grace_s=0.0,
            checkpoint_interval_s=3600.0 if sparse else 0.0,
        )
        run = Run(store, rules=rules, replay=replay, log=remembered(*fed))
        at = sum(run.progress.trained_through.values())
        steps: list[Step] = []
        for size, published in life:
            interval = functools.partial(setattr, run.publisher, "_rules")
            steps.append(functools.partial(interval, dataclasses.replace(rules, interval_s=3600.0 * (not published))))
            fed.append(batch_at(at, size))
            steps.append(fed[-1])
            at += size
        if number == len(lives):
            run.go(steps)
        else:
            with pytest.raises(Killed):
                run.go([*steps, kill])
    for version in store.versions():
        proof = prove(store, version, fed)
        assert (proof.difference, proof.departs_at) == (None, None), version
    last = manifests(store)[-1]
    assert prove(store, last.version, fed, 0).difference is None
    assert last.trained_through == ({"events": {"0": at}} if at else {})
    assert last.events_trained == at - len(range(12, at, 13))
