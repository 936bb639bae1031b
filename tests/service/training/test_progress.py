import dataclasses

import pytest

from consumers.records import OffsetRange, TopicPartition
from service.model.channel import Taught
from service.training.effort import Effort
from service.training.evaluation.measures import RankSums
from service.training.learner import LearnResult
from service.training.progress import RECENT_RANKED, Progress
from tests.model_store.worlds import manifest
from tests.service.training.runs import rejects

NOTHING = LearnResult(n_events=0, duplicates=0, taught=Taught())
HERE = TopicPartition("events", 0)


def test_it_counts_events_and_moves_on() -> None:
    progress = Progress()
    progress.add(rejects(0, 7), dataclasses.replace(NOTHING, n_events=5), Effort(2))
    progress.add(rejects(7, 9), dataclasses.replace(NOTHING, n_events=1, taught=Taught(skipped=True)), Effort(0), 3)
    assert progress.trained_through == {HERE: 9}
    assert progress.events_trained == 6
    first, second = progress.take_batches()
    assert first.ranges == (("events", 0, 0, 7),)
    assert (first.replay, first.skipped, first.weights_of_version) == (2, False, None)
    assert (second.replay, second.skipped, second.weights_of_version) == (0, True, 3)
    assert progress.take_batches() == ()


@pytest.mark.parametrize("start", [0, 4])
def test_offsets_never_go_back(start: int) -> None:
    progress = Progress()
    progress.add(rejects(0, 5), NOTHING, Effort(1))
    with pytest.raises(ValueError, match=r"events\[0\]: a batch from \d, but everything before 5 is learned"):
        progress.add(rejects(start, 9), NOTHING, Effort(1))
    assert progress.trained_through == {HERE: 5}
    assert len(progress.batches) == 1


def test_a_refused_batch_changes_nothing() -> None:
    progress = Progress(trained_through={TopicPartition("events", 1): 5})
    batch = dataclasses.replace(rejects(0, 3), ranges=(OffsetRange("events", 0, 0, 3), OffsetRange("events", 1, 4, 6)))
    with pytest.raises(ValueError, match=r"events\[1\]"):
        progress.add(batch, NOTHING, Effort(1))
    assert progress.trained_through == {TopicPartition("events", 1): 5}


def test_records_that_expired_leave_a_gap() -> None:
    progress = Progress(trained_through={HERE: 5})
    progress.add(rejects(90, 95), NOTHING, Effort(1))
    assert progress.trained_through == {HERE: 95}


def test_it_goes_on_from_a_manifest() -> None:
    progress = Progress.of(manifest(3))
    assert progress.trained_through == {HERE: 30}
    assert progress.events_trained == 30


def test_quality_is_averaged_over_the_latest_events() -> None:
    progress = Progress()
    assert progress.metrics() == {}
    n = RECENT_RANKED
    good = dataclasses.replace(NOTHING, ranked=RankSums(n, hits=n), taught=Taught(loss=2.0))
    bad = dataclasses.replace(NOTHING, ranked=RankSums(n, ndcg=n))
    progress.add(rejects(0, 1), good, Effort(1))
    assert progress.metrics() == {"train_loss": 2.0, "prequential_recall_at_20": 1.0, "prequential_ndcg_at_20": 0.0}
    progress.add(rejects(1, 2), bad, Effort(1))
    assert progress.metrics()["train_loss"] == 2.0
    assert progress.metrics()["prequential_recall_at_20"] == pytest.approx(1 / 3)
    assert progress.metrics()["prequential_ndcg_at_20"] == pytest.approx(2 / 3)
