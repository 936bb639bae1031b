import dataclasses

import pytest

from consumers.records import TopicPartition
from model_store.chain import load
from model_store.memory_store import MemoryStore
from model_store.signature import Signer
from model_store.version import KafkaIds
from service.metrics import TrainerMetrics
from service.process import Fatal
from service.settings import TrainerSettings
from service.training.configuration import config_digest, learner_config
from service.training.resume import Beginning
from service.training.resume import begin as begin_with
from tests.service.training.runs import CONFIG, DIGEST, KAFKA, ORIGIN, Run, batches, manifests, remembered
from tests.service.training.streams import TYPES, assert_same


def begin(store: MemoryStore, *, fresh: bool = False, **origin: object) -> Beginning:
    told = dataclasses.replace(ORIGIN, **origin)  # type: ignore[arg-type]
    return begin_with(store, CONFIG, told, remembered(*batches(20)), fresh=fresh, metrics=TrainerMetrics())


def trained(n: int = 3) -> tuple[MemoryStore, Run]:
    store = MemoryStore()
    return store, Run(store).go(batches(n))


def test_it_goes_on_from_the_newest_version_with_the_same_bits() -> None:
    store, run = trained()
    found = begin(store)
    assert (found.standing.parent, found.standing.newest) == (4, 4)
    assert found.progress.trained_through == {TopicPartition("events", 0): 60}
    assert found.progress.events_trained == run.progress.events_trained == manifests(store)[-1].events_trained > 0
    for batch in batches(3, first=3):
        assert run.learner.learn(batch) == found.learner.learn(batch)
        assert_same(run.learner.drain(), found.learner.drain())


def test_a_run_cut_in_two_ends_as_one_that_was_not() -> None:
    whole, _ = trained(6)
    cut, first = trained(3)
    second = Run(cut).go(batches(3, first=3))
    assert second.started_at == [{TopicPartition("events", 0): 60}]
    assert second.progress.events_trained > first.progress.events_trained
    assert manifests(cut)[-1].events_trained == manifests(whole)[-1].events_trained
    assert_same(load(cut, 8).snapshot(), load(whole, 7).snapshot())
    second_run = ["delta", "snapshot", "delta", "delta"]
    assert [m.kind for m in manifests(cut)] == ["snapshot", "delta", "delta", "delta", *second_run]


def test_a_damaged_version_is_passed_over_and_numbers_grow() -> None:
    store, _ = trained(3)
    store.tamper(manifest=(4, b"{}"))
    run = Run(store)
    assert (run.beginning.standing.parent, run.beginning.standing.newest) == (3, 4)
    assert run.publisher.published_version == 3
    run.go(batches(2, first=2))
    assert run.started_at == [{TopicPartition("events", 0): 40}]
    assert store.newest() == 7
    assert_same(load(store, 7).snapshot(), run.learner.snapshot())
    whole, _ = trained(4)
    assert_same(load(store, 7).snapshot(), load(whole, 5).snapshot())


def test_without_one_whole_version_it_does_not_begin_anew_by_itself() -> None:
    store, _ = trained(1)
    for version in store.versions():
        store.tamper(manifest=(version, b"{}"))
    with pytest.raises(
        Fatal,
        match=r"no version up to 2 can be read whole \(version 2: .*\); begin anew with .*--fresh",
    ):
        begin(store)
    assert begin(store, fresh=True).standing.newest == 2


def test_versions_from_before_the_key_are_continued_only_when_told_so() -> None:
    store, _ = trained(2)
    store.signer = Signer([b"key"])
    with pytest.raises(Fatal, match=r"not signed.*TIDEMILL_SIGNING_KEY is set.*TIDEMILL_ADOPT_UNSIGNED=1") as raised:
        begin(store)
    assert "--fresh" in str(raised.value)
    assert "\n" not in str(raised.value)
    store.signer = Signer([b"key"], unsigned_too=True)
    run = Run(store).go(batches(1, first=2))
    assert run.started_at == [{TopicPartition("events", 0): 40}]
    store.signer = Signer([b"key"])
    found = begin(store)
    assert (found.standing.parent, found.progress.trained_through) == (5, {TopicPartition("events", 0): 60})


def test_what_a_trainer_without_the_key_has_published_is_learned_again() -> None:
    store = MemoryStore(signer=Signer([b"key"]))
    Run(store).go(batches(2))
    store.signer = None
    Run(store).go(batches(1, first=2))
    assert store.newest() == 5
    store.signer = Signer([b"key"])
    run = Run(store).go(batches(2, first=2))
    assert run.started_at == [{TopicPartition("events", 0): 40}]
    whole, _ = trained(4)
    assert_same(load(store, 8).snapshot(), load(whole, 5).snapshot())


@pytest.mark.parametrize(
    ("digest", "kafka", "says"),
    [
        ("other", KAFKA, "version 2 was made with other settings"),
        (
            DIGEST,
            KafkaIds(cluster_id="moved", topics=KAFKA.topics),
            "it learned from Kafka cluster cluster.* is moved",
        ),
        (DIGEST, KafkaIds(cluster_id="cluster", topics={"events": "second"}), "topic events was made anew"),
    ],
)
def test_what_cannot_be_continued_soundly_is_refused(digest: str, kafka: KafkaIds, says: str) -> None:
    store, _ = trained(1)
    with pytest.raises(Fatal, match=says) as raised:
        begin(store, config_digest=digest, kafka=kafka)
    assert "--fresh" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_broker_that_tells_no_ids_is_believed() -> None:
    store, _ = trained(1)
    assert begin(store, kafka=KafkaIds(cluster_id="")).standing.parent == 2


def test_fresh_begins_anew_with_a_higher_version() -> None:
    store, _ = trained(2)
    run = Run(store, fresh=True).go(batches(1))
    assert run.started_at == [{}]
    assert store.versions() == [1, 2, 3, 4, 5]
    anew, after = manifests(store)[3:]
    assert (anew.kind, anew.parent, anew.events_trained, anew.trained_through) == ("snapshot", None, 0, {})
    assert after.trained_through == {"events": {"0": 20}}
    assert_same(load(store, 5).snapshot(), load(store, 2).snapshot())


def test_an_empty_store_is_where_everything_begins() -> None:
    found = begin(MemoryStore())
    assert (found.standing.parent, found.standing.newest, found.progress.trained_through) == (None, 0, {})


def test_the_digest_knows_what_matters() -> None:
    for same in ({"device": "cuda"}, {"evaluate_sample": 0}, {"max_items": 5}, {"max_users": 5}):
        assert config_digest(dataclasses.replace(CONFIG, **same), TYPES) == DIGEST
    for other in ({"seed": 1}, {"history": 6}, {"event_weights": (1.0,)}, {"dim": 4}):
        assert config_digest(dataclasses.replace(CONFIG, **other), TYPES) != DIGEST
    assert config_digest(CONFIG, TYPES[::-1]) != DIGEST


def test_settings_reach_the_learner() -> None:
    settings = TrainerSettings(seed=7, history_length=9, evaluate_sample=3, max_items=11, max_users=12)
    config = learner_config(settings, "cpu")
    assert (config.seed, config.history, config.evaluate_sample, config.max_items, config.max_users) == (
        7,
        9,
        3,
        11,
        12,
    )
    assert config.event_weights == tuple(settings.event_weights.values())
