import dataclasses
import logging
import re
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from consumers.micro_batch import MicroBatch
from consumers.recorded import NoAnswer
from consumers.records import TopicPartition
from model_store.chain import load, updates_between
from model_store.memory_store import MemoryStore
from model_store.signature import Signer
from model_store.version import BatchRecord, KafkaIds, Manifest
from service.metrics import TrainerMetrics
from service.model.registry import NEW_MODEL, parse
from service.process import Unmendable
from service.settings import TrainerSettings
from service.training.configuration import config_digest, config_of, model_config
from service.training.restart.rebuild import ReadBatch
from service.training.restart.resume import Beginning
from service.training.restart.resume import begin as begin_with
from tests.service.training.runs import (
    CONFIG,
    DIGEST,
    KAFKA,
    ORIGIN,
    RULES,
    Run,
    batches,
    configured,
    doctor,
    manifests,
    prove,
    remembered,
)
from tests.service.training.streams import assert_same


def begin(store: MemoryStore, *, fresh: bool = False, **origin: object) -> Beginning:
    told = dataclasses.replace(ORIGIN, **origin)  # type: ignore[arg-type]
    return begin_with(store, CONFIG, "cpu", told, remembered(*batches(20)), fresh=fresh, metrics=TrainerMetrics())


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
        Unmendable,
        match=r"no version up to 2 can be read whole \(version 2: .*\); begin anew with .*--fresh",
    ):
        begin(store)
    assert begin(store, fresh=True).standing.newest == 2


def test_versions_from_before_the_key_are_continued_only_when_told_so() -> None:
    store, _ = trained(2)
    store.signer = Signer([b"key"])
    with pytest.raises(
        Unmendable, match=r"not signed.*TIDEMILL_SIGNING_KEY is set.*TIDEMILL_ADOPT_UNSIGNED=1"
    ) as raised:
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


# -- between checkpoints -----------------------------------------------------------------------------------------------

SPARSE = dataclasses.replace(RULES, checkpoint_interval_s=3600.0)
KAFKA_LOG = remembered(*batches(20))


def sparse(n: int = 4) -> MemoryStore:
    """Version 1 is a checkpoint, and n are not."""
    store = MemoryStore()
    Run(store, rules=SPARSE).go(batches(n))
    assert [m.version for m in manifests(store) if m.checkpoint] == [1]
    return store


def relearned(run: Run) -> tuple[float, float]:
    """Versions that came out the same, and that did not."""
    found = (run.metrics.registry.get_sample_value("tidemill_versions_relearned_total", {"same": s}) for s in YES_NO)
    yes, no = (value or 0.0 for value in found)
    return yes, no


YES_NO = ("yes", "no")


def test_what_was_published_after_the_checkpoint_is_learned_again(caplog: pytest.LogCaptureFixture) -> None:
    whole, _ = trained(6)
    store = sparse(4)
    with caplog.at_level(logging.INFO):
        run = Run(store, rules=SPARSE, log=KAFKA_LOG)
    assert "learning again what versions 2 to 5 had learned" in caplog.text
    assert relearned(run) == (4, 0)
    assert (run.beginning.standing.parent, run.beginning.standing.batches) == (5, ())
    assert_same(run.learner.snapshot(), load(whole, 5).snapshot())
    assert_same(run.beginning.standing.state.snapshot(), load(whole, 5).snapshot())
    run.go(batches(2, first=4))
    assert run.started_at == [{TopicPartition("events", 0): 80}]
    follows, again, after = manifests(store)[5:]
    assert [(m.kind, m.parent, m.checkpoint) for m in (follows, again, after)] == [
        ("delta", 5, True),
        ("snapshot", 6, True),
        ("delta", 7, False),
    ]
    assert (follows.batches[0].ranges, again.batches) == ((("events", 0, 80, 100),), ())
    assert_same(load(store, 6).snapshot(), load(whole, 6).snapshot())
    assert_same(load(store, 7).snapshot(), load(whole, 6).snapshot())
    assert_same(load(store, 8, readers=True).snapshot(), load(whole, 7, readers=True).snapshot())


def test_killed_again_and_again_between_checkpoints_it_ends_the_same() -> None:
    whole, _ = trained(9)
    store = MemoryStore()
    for n in range(3):
        Run(store, rules=SPARSE, log=KAFKA_LOG).go(batches(3, first=3 * n))
    assert_same(Run(store, rules=SPARSE, log=KAFKA_LOG).learner.snapshot(), load(whole, 10).snapshot())
    assert prove(store, store.newest() or 0, batches(20), 0).difference is None


def assert_carried_on(store: MemoryStore, run: Run, carried: list[int], parent: int = 1) -> None:
    """The next version is whole, follows on a sound one, and has in its record what followed on that."""
    run.go(batches(2, first=4))
    assert run.started_at == [{TopicPartition("events", 0): 80}]
    first, second = manifests_from(store, 6)
    assert (first.kind, first.parent, first.checkpoint) == ("snapshot", parent, True)
    assert [batch.ranges[0][2] for batch in first.batches] == carried
    assert (second.kind, second.parent, len(second.batches)) == ("delta", 6, 1)
    whole, _ = trained(6)
    assert [m.events_trained for m in (first, second)] == [m.events_trained for m in manifests(whole)[5:7]]
    assert_same(load(store, 6).snapshot(), load(whole, 6).snapshot())
    assert_same(run.learner.snapshot(), load(whole, 7).snapshot())
    for version in (6, 7):
        assert prove(store, version, batches(20)).difference is None
        assert prove(store, version, batches(20), 0).difference is None


def manifests_from(store: MemoryStore, first: int) -> list[Manifest]:
    return [store.manifest(version) for version in store.versions() if version >= first]


@pytest.mark.parametrize("damage", [None, b"torn"])
@pytest.mark.parametrize("version", [3, 5])
def test_a_damaged_version_after_the_checkpoint_is_made_good(
    version: int, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Its record is there, so nothing is lost; and what comes next stands on nothing that is damaged."""
    store = sparse(4)
    store.tamper(blob=(store.manifest(version).blobs["weights/0"].key, damage))
    run = Run(store, rules=SPARSE, log=KAFKA_LOG)
    assert f"version {version} is damaged and passed over" in caplog.text
    assert relearned(run) == (4, 0)
    assert_carried_on(store, run, [0, 20, 40, 60, 80])


def test_a_version_that_comes_out_different_is_left_aside(caplog: pytest.LogCaptureFixture) -> None:
    """It was tampered with, consistently; versions that were built on it are tainted too."""
    store = sparse(4)
    doctor(store, 4, "clock")
    run = Run(store, rules=SPARSE, log=KAFKA_LOG)
    assert "version 4 comes out different when it is learned again" in caplog.text
    assert relearned(run) == (3, 1)
    assert_carried_on(store, run, [40, 60, 80], parent=3)


def test_events_that_have_expired_cannot_be_learned_again(caplog: pytest.LogCaptureFixture) -> None:
    store = sparse(4)
    run = Run(store, rules=SPARSE, log=remembered(*batches(2), *batches(1, first=3)))
    assert "what was published after version 1 cannot be learned again" in caplog.text
    assert "expired" in caplog.text
    assert "so learning goes on from version 1" in caplog.text
    assert (run.beginning.standing.parent, run.progress.trained_through, run.progress.events_trained) == (1, {}, 0)
    run.go(batches(3, first=3))  # what Kafka still has
    assert run.started_at == [{}]
    first = manifests_from(store, 6)[0]
    assert (first.kind, first.parent, len(first.batches)) == ("delta", 1, 1)
    assert first.events_trained == 20
    for version in store.versions()[5:]:
        assert prove(store, version, batches(20), 0).difference is None


def test_what_is_published_anew_was_learned_within_the_limits_it_tells(caplog: pytest.LogCaptureFixture) -> None:
    """A manifest tells the limits once, for all its batches."""
    bounded = configured(max_items=30)
    store = sparse(4)
    run = Run(store, rules=SPARSE, config=bounded, log=KAFKA_LOG)  # nothing has to be published anew
    assert (relearned(run), run.beginning.standing.parent) == ((4, 0), 5)
    store.tamper(blob=(store.manifest(5).blobs["weights/0"].key, None))
    run = Run(store, rules=SPARSE, config=bounded, log=KAFKA_LOG)
    assert "they would have to be published anew, and were learned within other limits" in caplog.text
    assert (run.beginning.standing.parent, run.progress.trained_through) == (1, {})
    run.go(batches(5))
    for version in store.versions()[5:]:
        assert prove(store, version, batches(20), 0).difference is None


def test_a_record_that_contradicts_itself_is_not_followed(caplog: pytest.LogCaptureFixture) -> None:
    store = sparse(4)
    behind = store.manifest(5).model_copy(update={"batches": store.manifest(3).batches})
    store.tamper(manifest=(5, behind.to_json()))
    run = Run(store, rules=SPARSE, log=KAFKA_LOG)
    assert "cannot be learned again: version 5: events[0]: a batch from 20, but everything before 60" in caplog.text
    assert (run.beginning.standing.parent, run.progress.trained_through) == (1, {})


def test_a_record_with_a_hole_is_not_followed(caplog: pytest.LogCaptureFixture) -> None:
    store = sparse(4)
    store.tamper(manifest=(3, None))
    run = Run(store, rules=SPARSE, log=KAFKA_LOG)
    assert "how versions 2 to 5 were made is not on record; learning goes on from version 1" in caplog.text
    assert (run.beginning.standing.parent, run.progress.trained_through) == (1, {})


def test_kafka_that_does_not_answer_is_asked_again_later() -> None:
    store = sparse(4)

    def silent(manifests: Sequence[Manifest]) -> ReadBatch:
        def read(record: BatchRecord) -> MicroBatch:
            raise NoAnswer("no record for 60 s")

        return read

    with pytest.raises(NoAnswer):
        Run(store, rules=SPARSE, log=silent)


# -- what may differ, and what may not ---------------------------------------------------------------------------------


def test_other_limits_libraries_and_threads_are_said(caplog: pytest.LogCaptureFixture) -> None:
    store, _ = trained(2)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        run = Run(store, config=configured(max_items=30), torch="9.9", threads=64)
    (line,) = [record.getMessage() for record in caplog.records if "otherwise" in record.getMessage()]
    torch = ORIGIN.environment["torch"]
    assert line == f"version 3 was made otherwise: limits.max_items None → 30, threads 1 → 64, torch {torch} → 9.9"
    run.go(batches(2, first=2))
    made = manifests(store)[-1]
    assert (config_of(made).limits.max_items, made.environment["torch"]) == (30, "9.9")
    assert run.learner.items.in_use <= 30


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"seed": 7}, r"version 3 was made with other settings \(seed 0 → 7\); put them back, or begin anew with"),
        ({"length": 9, "max_items": 5}, r"other settings \(history.length 5 → 9\); "),
        (
            {"seed": 7, "event_weights": {"view": 1.0}},
            r"settings \(.*history.event_weights.like 2.0 → \(none\),",
        ),
    ],
)
def test_settings_that_the_weights_depend_on_are_named_with_both_values(other: dict[str, Any], says: str) -> None:
    store, _ = trained(2)
    asked = configured(**other)
    with pytest.raises(Unmendable, match=says) as raised:
        Run(store, config=asked)
    assert "\n" not in str(raised.value)
    assert Run(store, config=asked, fresh=True).beginning.standing.parent is None


def test_what_no_setting_is_about_is_the_model_s_own() -> None:
    """Another release may begin new models with other numbers; the ones that are there go on with theirs."""
    store, _ = trained(2)
    run = Run(store, config=configured(negatives=64, dim=4, remember_unlisted=False, max_items=30)).go(
        batches(1, first=2)
    )
    assert run.learner.config == configured(max_items=30)
    made = manifests(store)[-1]
    assert (config_of(made), made.config_digest) == (configured(max_items=30), DIGEST)
    assert prove(store, made.version, batches(3)).difference is None


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (CONFIG.to_json() | {"momentum": 1}, "momentum is not known to this build"),
        (CONFIG.to_json() | {"channels": {"weather": {}}}, "channels.weather is not known to this build"),
        (CONFIG.to_json() | {"blend": {"warmth": 1}}, "BlendConfig.warmth: Extra inputs are not permitted"),
        (CONFIG.to_json() | {"history": {"length": 0}}, "HistoryConfig.length: Input should be greater than or equal"),
    ],
)
def test_a_model_of_a_later_release_is_refused(config: dict[str, Any], says: str) -> None:
    store, _ = trained(1)
    store.tamper(manifest=(2, store.manifest(2).model_copy(update={"config": config}).to_json()))
    with pytest.raises(Unmendable, match=re.escape(f"version 2 was made by another release than this one: {says}")):
        begin(store)


@pytest.mark.parametrize(
    ("kafka", "says"),
    [
        (
            KafkaIds(cluster_id="moved", topics=KAFKA.topics),
            "cluster moved, and it was cluster; .*--fresh",
        ),
        (
            KafkaIds(cluster_id="cluster", topics={"events": "second"}),
            "events was made anew .*--fresh",
        ),
    ],
)
def test_what_cannot_be_continued_soundly_is_refused(kafka: KafkaIds, says: str) -> None:
    store, _ = trained(1)
    with pytest.raises(Unmendable, match=says) as raised:
        begin(store, kafka=kafka)
    assert "--fresh" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_broker_that_tells_no_ids_is_believed() -> None:
    store, _ = trained(1)
    assert begin(store, kafka=KafkaIds(cluster_id="")).standing.parent == 2


def test_where_the_configuration_was_written_otherwise_the_first_version_is_a_snapshot() -> None:
    """It means the same, so learning goes on; but readers take no delta of another digest than its parent's."""
    store, _ = trained(2)
    for version in store.versions():
        written = store.manifest(version).model_copy(update={"config_digest": "of an earlier text"})
        store.tamper(manifest=(version, written.to_json()))
    run = Run(store)
    assert not run.beginning.standing.chained
    run.go(batches(2, first=2))
    first, second = manifests_from(store, 4)
    assert (first.kind, first.parent, [batch.ranges[0][2] for batch in first.batches]) == ("snapshot", 3, [40])
    assert (second.kind, second.parent) == ("delta", 4)
    assert first.config_digest == second.config_digest == run.beginning.origin.config_digest
    for have in (None, 1, 3):
        assert updates_between(store, have, 5)[-1][0].version == 5
    whole, _ = trained(4)
    assert_same(load(store, 5).snapshot(), load(whole, 5).snapshot())
    assert Run(store).beginning.standing.chained


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
    turned = dict(reversed(CONFIG.history.event_weights.items()))  # objects have no order
    for same in ({"max_items": 5}, {"max_users": 5}, {"event_weights": turned}):
        assert config_digest(configured(**same)) == DIGEST
    for other in (
        {"seed": 1},
        {"length": 6},
        {"event_weights": {"view": 1.0}},
        {"rating_scale": (1, 5)},
        {"dim": 4},
        {"scale": 2.0},
    ):
        assert config_digest(configured(**other)) != DIGEST


def test_settings_reach_the_model() -> None:
    settings = TrainerSettings(seed=7, history_length=9, max_items=11, max_users=12)
    config = model_config(settings)
    assert (config.seed, config.history.length, config.limits.max_items, config.limits.max_users) == (7, 9, 11, 12)
    assert config.history.event_weights == settings.event_weights
    assert config.history.rating_scale is None
    assert model_config(TrainerSettings(rating_scale="1,5")).history.rating_scale == (1, 5)
    assert (config.channels, config.items) == (NEW_MODEL.channels, NEW_MODEL.items)
    assert parse(orjson.loads(orjson.dumps(config.to_json()))) == config
