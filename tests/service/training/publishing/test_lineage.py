"""What the next version follows on, also after the store has lost the newest ones."""

import pytest

from model_store.version import BatchRecord
from service.training.publishing.lineage import Lineage
from service.training.publishing.submission import Standing
from tests.model_store.worlds import manifest


def batch(number: int) -> BatchRecord:
    return BatchRecord(ranges=(("events", 0, number, number + 1),))


def numbers(batches: list[BatchRecord]) -> list[int]:
    return [each.ranges[0][2] for each in batches]


def published(versions: int, parent: int | None = None) -> Lineage:
    """So many versions with a batch each, on `parent`."""
    lineage = Lineage(Standing(parent=parent, newest=parent or 0))
    for number in range(lineage.newest + 1, lineage.newest + versions + 1):
        lineage.add([batch(number)])
        lineage.released(manifest(number))
    return lineage


def test_a_new_model_begins_with_a_snapshot_and_deltas_follow() -> None:
    lineage = Lineage(Standing())
    assert not lineage.takes_a_delta
    lineage.add([batch(0)])
    lineage.released(manifest(1))
    assert lineage.takes_a_delta
    assert (lineage.parent, lineage.newest, lineage.batches) == (1, 1, [])
    assert lineage.parent_at == manifest(1).created


@pytest.mark.parametrize(
    ("standing", "delta"),
    [
        (Standing(parent=4, newest=4), True),
        (Standing(parent=4, newest=6), True),
        (Standing(parent=4, newest=6, batches=(batch(9),), chained=False), False),
        (Standing(parent=4, newest=4, chained=False), False),
    ],
    ids=["the newest", "not the newest", "more was learned", "another configuration"],
)
def test_a_run_goes_on_with_a_delta_only_where_it_fits(standing: Standing, delta: bool) -> None:
    lineage = Lineage(standing)
    assert lineage.takes_a_delta is delta
    lineage.released(manifest(7))
    assert lineage.takes_a_delta


@pytest.mark.parametrize(
    ("left", "parent", "waiting"),
    [(5, 5, []), (3, 3, [4, 5]), (1, 1, [2, 3, 4, 5]), (0, 5, []), (None, 5, []), (9, 5, [])],
)
def test_batches_of_lost_versions_wait_again(left: int | None, parent: int, waiting: list[int]) -> None:
    lineage = published(5)
    lineage.add([batch(6)])
    lineage.in_doubt = True
    lineage.settle(left)
    assert (lineage.parent, numbers(lineage.batches)) == (parent, [*waiting, 6])
    assert lineage.takes_a_delta is (not waiting)
    assert not lineage.in_doubt
    assert lineage.newest == 5  # numbers go on


def test_the_version_that_a_run_began_with_may_be_what_is_left() -> None:
    lineage = published(2, parent=7)
    lineage.settle(7)
    assert (lineage.parent, numbers(lineage.batches)) == (7, [8, 9])


def test_it_may_lose_versions_twice() -> None:
    lineage = published(5)
    lineage.settle(4)
    lineage.settle(2)
    assert (lineage.parent, numbers(lineage.batches)) == (2, [3, 4, 5])
