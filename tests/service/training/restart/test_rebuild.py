"""Learning again, version by version: what comes out is what was published, with the settings of its time."""

import dataclasses

import numpy as np
import pytest

from consumers.records import by_topic
from model_store.chain import load, updates_between
from model_store.errors import BrokenChain
from model_store.memory_store import MemoryStore
from model_store.weights import State
from service.training.learner import Learner
from service.training.progress import Progress
from service.training.restart.rebuild import rebuild, resets
from tests.service.training.runs import CONFIG, RULES, Run, batches, configured, doctor, manifests, remembered
from tests.service.training.streams import assert_same

FED = batches(10)


def never(version: int) -> State:
    raise AssertionError(f"version {version} is on the way")


def published(n: int = 4, chain_limit: int = 2) -> MemoryStore:
    store = MemoryStore()
    Run(store, rules=dataclasses.replace(RULES, chain_limit=chain_limit)).go(FED[:n])
    return store


def test_each_version_comes_out_with_the_update_it_was() -> None:
    store = published()
    first, *way = manifests(store)
    learner = Learner.restore(CONFIG, load(store, 1))
    progress = Progress.of(first)
    state = load(store, 1)
    steps = list(rebuild(learner, progress, way, remembered(*FED)(way), never))
    assert [step.manifest for step in steps] == way
    assert [step.same for step in steps] == [True, True, None, True, True, None]  # a snapshot brings no delta
    for step in steps:
        if step.manifest.kind == "delta":
            ((_, update),) = updates_between(store, step.manifest.version - 1, step.manifest.version, readers=False)
            assert_same(step.update, update)
        state.apply(step.update)
        assert_same(state.snapshot(), load(store, step.manifest.version).snapshot())
    assert progress.events_trained == way[-1].events_trained
    assert by_topic(progress.trained_through) == way[-1].trained_through


def test_one_that_comes_out_different_is_said_and_the_next_one_goes_on() -> None:
    store = published(chain_limit=100)
    doctor(store, 3, "clock")
    way = manifests(store)[1:]
    steps = list(rebuild(Learner(CONFIG), Progress(), way, remembered(*FED)(way), never))
    assert [step.same for step in steps] == [True, False, True, True]


def test_only_what_is_for_readers_says_whether_it_is_the_same() -> None:
    """Between checkpoints nothing else is published."""
    store = published(chain_limit=100)
    doctor(store, 3, "trainer/network/first", 5)
    way = manifests(store)[1:]
    steps = list(rebuild(Learner(CONFIG), Progress(), way, remembered(*FED)(way), never))
    assert [step.same for step in steps] == [True] * 4


def test_limits_are_those_of_each_version_and_each_is_prepared_for() -> None:
    store = MemoryStore()
    for n, limit in enumerate((40, 24)):
        Run(store, config=configured(max_items=limit)).go(FED[3 * n : 3 * n + 3])
    learner, way, seen = Learner(CONFIG), manifests(store), list[tuple[int, int | None, int]]()
    prepared: list[int] = []
    for step in rebuild(
        learner, Progress(), way, remembered(*FED)(way), never, prepare=lambda m: prepared.append(m.version)
    ):
        assert prepared[-1] == step.manifest.version
        seen.append((step.manifest.version, learner.limits.max_items, learner.items.in_use))
    assert [limit for _, limit, _ in seen] == [40] * 4 + [24] * 4
    assert all(limit is not None and used <= limit for _, limit, used in seen)
    assert prepared == [manifest.version for manifest in way]


def test_a_version_that_weights_went_back_to_is_remembered_on_the_way_or_asked_for() -> None:
    store = published(chain_limit=100)
    batch = store.manifest(5).batches[0].model_copy(update={"weights_of_version": 3})
    back = store.manifest(5).model_copy(update={"batches": (batch,)})
    way = [*manifests(store)[1:-1], back]
    assert resets(way) == {3}
    assert resets(way[:-1]) == set()
    whole, short = Learner(CONFIG), Learner.restore(CONFIG, load(store, 4))
    for _ in rebuild(whole, Progress(), way, remembered(*FED)(way), never):
        pass
    asked: list[int] = []

    def state_of(version: int) -> State:
        asked.append(version)
        return load(store, version)

    for _ in rebuild(short, Progress.of(store.manifest(4)), [back], remembered(*FED)([back]), state_of):
        pass
    assert asked == [3]
    assert_same(short.snapshot(), whole.snapshot())
    old = load(store, 3).table("item/row")
    assert not isinstance(old, list)
    rows = np.asarray(whole.snapshot().tables["item/row"].values)
    assert rows[: len(old)].tobytes() == np.ascontiguousarray(old).tobytes()


def test_batches_from_behind_are_a_broken_record() -> None:
    store = published(chain_limit=100)
    way = manifests(store)
    with pytest.raises(
        BrokenChain, match=r"version 3: events\[0\]: a batch from 20, but everything before 60"
    ) as raised:
        list(rebuild(Learner(CONFIG), Progress(), [*way[:4], way[2]], remembered(*FED)(way), never))
    assert raised.value.version == 3
