from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.records import TopicPartition, from_topics
from service.scoring import freshness as module
from service.scoring.active_users import ActiveUser, ActiveUsers, PlacedEvent
from service.scoring.freshness import HISTORY, LEARNED, STAGES, Freshness
from service.scoring.user_history import UserHistory
from tests.consumers.samples import NOW_MS
from tests.service.scoring.test_active_users import taken

HERE, THERE = TopicPartition("events", 0), TopicPartition("events", 1)
USERS = ["a", "b", "c"]


class Seen:
    """A Freshness, with what it has measured and left out."""

    def __init__(self) -> None:
        self.waited: list[tuple[str, float]] = []
        self.left_out: Counter[str] = Counter()
        self.freshness = Freshness(lambda stage, seconds: self.waited.append((stage, seconds)), self._leave_out)

    def _leave_out(self, stage: str, events: int) -> None:
        assert events > 0
        self.left_out[stage] += events

    def count(self, stage: str) -> int:
        return sum(of == stage for of, _ in self.waited)


def test_events_are_measured_once_a_stage_when_their_users_list_is_written() -> None:
    seen = Seen()
    fresh = seen.freshness
    fresh.acted("a", HERE, 5, 1000)
    fresh.acted("b", HERE, 6, 2000)
    fresh.acted("a", THERE, 0, 3000)
    fresh.written("a", 3500)
    assert seen.waited == [(HISTORY, 2.5), (HISTORY, 0.5)]
    assert fresh.learned(from_topics({"events": {"0": 6}, "items": {"0": 9}}), USERS) == ["a"]
    assert fresh.learned(from_topics({"events": {"0": 6}}), USERS) == []
    fresh.written("b", 2500)
    assert seen.waited[2:] == [(HISTORY, 0.5)]  # no weights have learned from b's event
    fresh.written("a", 4000)
    fresh.written("a", 5000)
    assert seen.waited[3:] == [(LEARNED, 3.0)]
    assert fresh.learned(from_topics({"events": {"0": 7, "1": 1}}), USERS) == ["b", "a"]
    fresh.written("a", 2999)  # two machines' clocks differ
    assert seen.waited[4:] == [(LEARNED, 0.0)]
    assert (fresh.held, seen.left_out) == (1, {})


@pytest.mark.parametrize(
    ("kafka_ms", "waited", "implausible"),
    [
        (NOW_MS - 250, 0.25, None),
        (NOW_MS, 0.0, None),
        (NOW_MS + 900, 0.0, None),  # two machines' clocks differ
        (NOW_MS + 3_600_000, None, "ahead"),  # an hour off
        (NOW_MS * 1000, None, "ahead"),  # microseconds
        (NOW_MS - 1_700_000, 1700.0, None),  # a backlog
        (NOW_MS - 3_600_000, None, "old"),
        (NOW_MS // 1000, None, "old"),  # seconds
        (NOW_MS - 365 * 86_400_000, None, "old"),  # of another cluster
        (-1, None, "old"),  # none
    ],
)
def test_times_that_cannot_be_are_counted_apart(kafka_ms: int, waited: float | None, implausible: str | None) -> None:
    measured: list[tuple[str, float]] = []
    apart: list[tuple[str, str]] = []
    fresh = Freshness(lambda *seen: measured.append(seen), implausible=lambda *seen: apart.append(seen))
    fresh.acted("a", HERE, 5, kafka_ms)
    fresh.written("a", NOW_MS)
    fresh.learned(from_topics({"events": {"0": 6}}), ["a"])
    fresh.written("a", NOW_MS)
    assert measured == ([] if waited is None else [(HISTORY, waited), (LEARNED, waited)])
    assert apart == ([] if implausible is None else [(HISTORY, implausible), (LEARNED, implausible)])


def test_whoever_goes_is_left_out() -> None:
    seen = Seen()
    for offset, user in enumerate("abc"):
        seen.freshness.acted(user, HERE, offset, 1000)
    seen.freshness.forget("a")
    assert seen.left_out == {HISTORY: 1}
    assert seen.freshness.learned(from_topics({"events": {"0": 2}}), {"b", "c"}) == ["b"]
    assert seen.left_out == {HISTORY: 1, LEARNED: 1}
    seen.freshness.forget("b")
    assert seen.left_out == {HISTORY: 2, LEARNED: 2}
    seen.freshness.lose([HERE, THERE])
    assert seen.left_out == {HISTORY: 2, LEARNED: 3}
    seen.freshness.written("c", 1000)
    assert (seen.freshness.held, seen.waited) == (0, [(HISTORY, 0.0)])


steps = st.one_of(
    st.tuples(st.just("acts"), st.sampled_from(USERS), st.sampled_from([HERE, THERE])),
    st.tuples(st.just("learns"), st.integers(0, 30), st.integers(0, 30)),
    st.tuples(st.just("writes"), st.sampled_from(USERS)),
    st.tuples(st.just("forgets"), st.sampled_from(USERS)),
    st.tuples(st.just("loses"), st.sampled_from([HERE, THERE])),
)


@given(st.lists(steps, max_size=60), st.integers(1, 9), st.integers(1, 4), st.integers(1, 6))
def test_what_is_held_is_bounded_and_each_event_measured_or_counted(
    sequence: list[Any], waiting: int, per_user: int, per_partition: int
) -> None:
    seen, ends, acted = Seen(), {HERE: 0, THERE: 0}, 0
    fresh = seen.freshness
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WAITING", waiting)
        patch.setattr(module, "PER_USER", per_user)
        patch.setattr(module, "UNLEARNED_PER_PARTITION", per_partition)
        for what, *told in sequence:
            if what == "acts":
                fresh.acted(told[0], told[1], ends[told[1]], 0)
                ends[told[1]] += 1
                acted += 1
            elif what == "learns":
                fresh.learned(from_topics({"events": {"0": told[0], "1": told[1]}}), USERS[:2])
            elif what == "writes":
                fresh.written(told[0], 0)
            elif what == "forgets":
                fresh.forget(told[0])
            else:
                fresh.lose([told[0]])
            held = {stage: list(map(len, fresh._waiting[stage].values())) for stage in STAGES}
            queued = list(map(len, fresh._unlearned.values()))
            for stage in STAGES:
                assert sum(held[stage]) == fresh._count[stage] <= waiting
                assert all(0 < of_user <= per_user for of_user in held[stage])
                still = sum(held[stage]) + (sum(queued) if stage == LEARNED else 0)
                assert seen.count(stage) + seen.left_out[stage] + still == acted
            assert all(of_partition <= per_partition for of_partition in queued)
            assert fresh.held == sum(map(sum, held.values())) + sum(queued)


@given(st.lists(st.tuples(st.integers(0, 11), st.booleans()), max_size=60), st.integers(1, 5))
def test_without_weights_no_more_users_and_events_are_held_than_the_limits_say(
    acts: list[tuple[int, bool]], limit: int
) -> None:
    """The scorer's memory, however long there is no version: users as well as what is remembered of each."""
    fresh = Freshness()
    users = ActiveUsers(limit, fresh)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WAITING", 10)
        patch.setattr(module, "UNLEARNED_PER_PARTITION", 7)
        for offset, (user, forgetting) in enumerate(acts):
            name = f"u{user}"
            if name not in users:
                users.add(ActiveUser(name, b"", UserHistory(last_event_ms=offset)))
            one: PlacedEvent = taken(name, offset, HERE, offset)
            users.acted(users[name], one)
            if forgetting:
                users.forget_quiet(offset - 3)
                assert len(users) <= limit
                assert users.due <= limit
        assert fresh.held <= 10 + 7
