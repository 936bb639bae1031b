import pytest

from model_store.version import BatchRecord
from service.training.effort import FULL, Effort, affordable


@pytest.mark.parametrize(
    ("waiting", "replay", "wanted"),
    [
        (0.0, 1, FULL),
        (2.0, 3, Effort(replay=3)),
        (2.1, 3, Effort(replay=0, lessons=0.5)),
        (4.0, 1, Effort(replay=0, lessons=0.5)),
        (4.1, 1, Effort(replay=0, network=0.5, lessons=0.25)),
        (8.0, 0, Effort(replay=0, network=0.5, lessons=0.25)),
        (8.1, 1, Effort(replay=0, network=0.125, lessons=0.0625)),
        (1e9, 9, Effort(replay=0, network=0.125, lessons=0.0625)),
    ],
)
def test_the_further_behind_the_less_is_learned_of_a_batch(waiting: float, replay: int, wanted: Effort) -> None:
    assert affordable(waiting, replay) == wanted


def test_more_waiting_never_means_more_effort() -> None:
    made = [affordable(waiting / 4, 2) for waiting in range(50)]
    for name in ("replay", "network", "lessons"):
        shares = [getattr(effort, name) for effort in made]
        assert shares == sorted(shares, reverse=True), name


@pytest.mark.parametrize("effort", [FULL, Effort(0), Effort(2, 0.5, 0.25), Effort(0, 0.125, 1.0), Effort(1, 1.0, 0.5)])
def test_a_batchs_record_says_with_what_effort_it_was_learned(effort: Effort) -> None:
    record = BatchRecord(ranges=(), replay=effort.replay, extra=effort.extra)
    assert Effort.of(BatchRecord.model_validate_json(record.model_dump_json())) == effort


def test_what_is_whole_is_not_said() -> None:
    """So records of a trainer that is not behind are those of earlier releases."""
    assert FULL.extra == Effort(0).extra == {}
    assert Effort(0, 0.5, 1.0).extra == {"network": 0.5}


def test_batches_of_earlier_releases_were_learned_in_full() -> None:
    assert Effort.of(BatchRecord(ranges=(), replay=2)) == Effort(2, 1.0, 1.0)
