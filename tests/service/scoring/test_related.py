"""What goes with each item: written where its row has moved, by one scorer at a time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from consumers.decode import DecodeRules
from consumers.memory_source import MemoryLog, MemorySource
from model_store.errors import StoreUnavailable
from model_store.memory_store import MemoryStore
from model_store.redis_connection import RedisConnection
from service.health import Health
from service.metrics import ScorerMetrics
from service.scoring.blocked_items import BlockedItems
from service.scoring.list_store import RELATED, ListStore, UserList
from service.scoring.related import ASK_EVERY_S, EVERY_S, GROUP, LEASE_S, REST_S, RelatedLists
from service.scoring.reloader import Reloader
from service.scoring.sweeper import Sweeper
from tests.service.scoring.workers import Clock
from tests.service.scoring.worlds import Trainer, body_of, items_of
from tests.service.training.streams import clicks, micro_batch

K = 10


class Lists(ListStore):
    """Remembers which items' lists were written together; is away when told."""

    away = False

    def __init__(self, connection: RedisConnection) -> None:
        super().__init__(connection, "t", recs_ttl_s=100, history_ttl_s=100)
        self.groups: list[list[str]] = []

    def write_lists(self, lists: Sequence[UserList]) -> None:
        if self.away:
            raise StoreUnavailable("away")
        super().write_lists(lists)
        self.groups.append([each.user_id for each in lists])


class Scorer:
    """The part of a scorer that writes related lists."""

    def __init__(self, connection: RedisConnection, store: MemoryStore, clock: Clock) -> None:
        self.connection, self.clock, self.lists = connection, clock, Lists(connection)
        metrics = ScorerMetrics()
        self.reloader = Reloader(store, poll_s=1, device="cpu", metrics=metrics, health=Health("scorer"))
        log = MemoryLog()
        log.create("items", 1)
        self.sweeper = Sweeper(self.lists, metrics, clock=clock)
        blocked = BlockedItems(MemorySource(log), "items", DecodeRules())
        self.related = RelatedLists(self.reloader.moved, blocked, self.lists, self.sweeper, K, metrics, clock=clock)

    def write(self, exclude: Any = None) -> list[str]:
        """The items whose lists one call writes, after some time."""
        self.clock.pass_by(1.5 * EVERY_S)
        self.reloader.check()
        assert self.reloader.served is not None
        before = len(self.lists.groups)
        self.related.write(self.reloader.served, exclude)
        return [item for group in self.lists.groups[before:] for item in group]

    def write_all(self) -> list[str]:
        """The items whose lists are written until there is nothing to do."""
        found: list[str] = []
        while group := self.write():
            found += group
        return found

    def raw(self, item: str) -> bytes | None:
        found: bytes | None = self.connection.call("GET", f"t:related:{item}")
        return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trainer() -> Trainer:
    made = Trainer(MemoryStore())
    made.learn_much()
    made.publish(through=7)
    return made


@pytest.fixture
def scorer(connection: RedisConnection, trainer: Trainer, clock: Clock) -> Scorer:
    return Scorer(connection, trainer.store, clock)


def test_at_first_every_item_gets_a_list_a_group_at_a_time(scorer: Scorer, trainer: Trainer) -> None:
    written = scorer.write_all()
    assert sorted(written) == sorted(id_ for id_ in trainer.learner.recommender.ids if id_)
    assert max(len(group) for group in scorer.lists.groups) <= GROUP
    item = written[0]
    body = body_of(scorer.raw(item))
    assert body.keys() == {"model_version", "generated_at", "trained_through", "items"}
    assert (body["model_version"], body["trained_through"]) == (1, {"events": {"0": 7}})
    model = trainer.learner.recommender
    rows, scores = model.related(model.rows_of([item]), K)
    assert [(each["item_id"], each["score"]) for each in body["items"]] == [
        (model.ids[row], pytest.approx(score)) for row, score in zip(rows[0], scores[0], strict=True) if row >= 0
    ]
    assert item not in items_of(scorer.raw(item))


def test_then_only_lists_whose_rows_have_moved_and_none_again_before_it_has_rested(
    scorer: Scorer, trainer: Trainer, clock: Clock
) -> None:
    scorer.write_all()
    trainer.learner.learn(micro_batch(clicks([("new", "i0"), ("new", "i1")]), first_key=900_000))
    trainer.publish(through=8)
    assert scorer.write_all() == []  # all of them were written a moment ago
    clock.pass_by(REST_S)
    moved = scorer.write_all()
    assert sorted(moved) == ["i0", "i1"]
    assert {body_of(scorer.raw(item))["model_version"] for item in moved} == {2}
    clock.pass_by(REST_S)
    assert scorer.write_all() == []


def test_one_scorer_at_a_time_writes_and_the_next_writes_all(
    scorer: Scorer, trainer: Trainer, connection: RedisConnection, clock: Clock
) -> None:
    other = Scorer(connection, trainer.store, clock)
    everything = scorer.write_all()
    assert other.write_all() == []
    connection.call("PEXPIRE", "t:related_writer", 0)  # the first has been away for longer than its lease
    clock.pass_by(ASK_EVERY_S)
    assert sorted(other.write_all()) == sorted(everything)
    trainer.learn(30)
    trainer.publish()
    clock.pass_by(REST_S)
    assert scorer.write_all() == []
    assert other.write_all()
    assert 0 < connection.call("PTTL", "t:related_writer") <= 1000 * LEASE_S


def test_what_could_not_be_written_is_written_once_redis_answers(scorer: Scorer, trainer: Trainer) -> None:
    scorer.lists.away = True
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            scorer.write()
    scorer.lists.away = False
    assert sorted(scorer.write_all()) == sorted(id_ for id_ in trainer.learner.recommender.ids if id_)


def test_what_is_blocked_is_in_no_list_and_is_swept_out_of_old_ones(scorer: Scorer, trainer: Trainer) -> None:
    written = scorer.write_all()
    item = next(each for each in written if len(items_of(scorer.raw(each))) > 2)
    first, second, *_ = items_of(scorer.raw(item))
    scorer.sweeper.sweep_soon({first})
    scorer.sweeper.sweep()
    assert items_of(scorer.raw(item))[0] == second
    assert all(first not in items_of(scorer.raw(each)) for each in written)
    model = trainer.learner.recommender
    exclude = np.zeros(model.size, np.bool_)
    exclude[model.rows_of([second])] = True
    trainer.learn(200)
    trainer.publish()
    scorer.clock.pass_by(REST_S)
    again = scorer.write(exclude)
    assert again
    assert all(second not in items_of(scorer.raw(each)) for each in again)
    assert RELATED in scorer.sweeper._sweeps()


def test_lists_outlive_a_full_version_of_another_model(scorer: Scorer, trainer: Trainer, clock: Clock) -> None:
    scorer.write_all()
    clock.pass_by(REST_S)
    trainer.publish(snapshot=True)
    assert sorted(scorer.write_all()) == sorted(id_ for id_ in trainer.learner.recommender.ids if id_)
