from collections import deque
from itertools import takewhile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from consumers.events import DEFAULT_EVENT_WEIGHTS, Interaction
from consumers.records import TopicPartition, from_topics
from service.model.history import HistoryRule
from service.scoring.active_users import LOOKS_PER_LIST, ActiveUser, ActiveUsers, PlacedEvent
from service.scoring.user_history import UserHistory
from tests.consumers.samples import NOW_MS

HERE = TopicPartition("events", 0)
THERE = TopicPartition("events", 1)
LATER = 1e9  # every list was written before


def taken(user_id: str, offset: int = 0, where: TopicPartition = HERE, kafka_ms: int = NOW_MS) -> PlacedEvent:
    return PlacedEvent(Interaction(user_id=user_id, item_id="i1", type="view", ts=NOW_MS), where, offset, kafka_ms)


def act(
    users: ActiveUsers, user_id: str, offset: int = 0, where: TopicPartition = HERE, ms: int = NOW_MS
) -> ActiveUser:
    """As a scorer does it: the user is added at first sight, the history takes the event, then the user has acted."""
    if user_id not in users:
        users.add(ActiveUser(user_id, b"", UserHistory()))
    user = users[user_id]
    one = taken(user_id, offset, where, ms)
    user.history.take(one.event, where, offset, ms, rule=HistoryRule(20, DEFAULT_EVENT_WEIGHTS), hide="none")
    users.acted(user, one)
    return user


def group(users: ActiveUsers, size: int = 100, version: int = 1, written_before: float = LATER) -> list[str]:
    return [user.user_id for user in users.next_group(size, (version, 0), written_before)]


def write(users: ActiveUsers, *names: str, version: int = 1, now: float = 1.0, empty: bool = False) -> None:
    for name in names:
        users.written(users[name], (version, 0), now, NOW_MS, empty=empty)


def settle(users: ActiveUsers, *names: str, version: int = 1) -> None:
    """Each has acted, and their lists were written by `version` at 1, 2, 3 ..."""
    for offset, name in enumerate(names):
        act(users, name, offset)
    assert group(users, version=version, written_before=-1) == list(names)
    for now, name in enumerate(names, 1):
        write(users, name, version=version, now=float(now))


def test_whoever_acted_is_due_once_in_the_order_of_acting() -> None:
    users = ActiveUsers(10)
    for offset, name in enumerate(["a", "b", "a", "c", "b"]):
        act(users, name, offset)
    assert users.due == 3
    assert group(users, 2) == ["a", "b"]
    assert users.due == 1
    assert group(users) == ["c"]
    assert group(users) == []


def test_a_user_is_answered_once_their_list_reflects_their_events_and_holds_something() -> None:
    users = ActiveUsers(10)
    user = act(users, "a", 3)
    assert act(users, "a", 4) is user
    assert user.unanswered
    write(users, "a", empty=True)
    assert user.unanswered
    write(users, "a", version=7)
    assert (user.unanswered, user.edition) == (False, (7, 0))
    act(users, "a", 5)
    assert user.unanswered


def test_those_who_acted_come_before_those_learned_from_before_those_at_rest() -> None:
    users = ActiveUsers(10)
    settle(users, "rest", "learned", "due")
    users.learned(from_topics({"events": {"0": 3}}))
    write(users, *group(users, written_before=0))
    act(users, "learned", 10)
    assert group(users, written_before=0) == ["learned"]
    write(users, "learned", now=9.0)
    users.learned(from_topics({"events": {"0": 11}}))
    act(users, "due", 12)
    assert group(users, version=2) == ["due", "learned", "rest"]
    assert group(users, version=2) == []


def test_users_are_learned_from_when_weights_reach_their_offsets() -> None:
    users = ActiveUsers(10)
    for offset, name in enumerate("abc"):
        act(users, name, offset)
    act(users, "d", 0, THERE)
    write(users, *group(users))
    users.learned(from_topics({"events": {"0": 2}, "items": {"0": 99}}))
    assert group(users, 2, written_before=0) == ["a", "b"]
    users.learned(from_topics({"events": {"0": 2}}))
    assert group(users, written_before=0) == []
    users.learned(from_topics({"events": {"0": 3, "1": 1}}))
    assert group(users, written_before=0) == ["c", "d"]


def test_a_user_who_is_due_is_not_also_learned_from() -> None:
    users = ActiveUsers(10)
    act(users, "a", 0)
    users.learned(from_topics({"events": {"0": 1}}))
    assert group(users) == ["a"]
    write(users, "a")
    act(users, "a", 1)
    write(users, *group(users))
    users.learned(from_topics({"events": {"0": 2}}))
    act(users, "a", 2)
    assert group(users) == ["a"]
    assert group(users) == []


def test_failed_users_are_due_again_and_once() -> None:
    users = ActiveUsers(10)
    settle(users, "a", "b")
    act(users, "a", 5)
    failed = users.next_group(1, (2, 0), LATER)
    users.learned(from_topics({"events": {"0": 6}}))  # between the attempt and its failure
    users.again(failed)
    assert users.due == 1
    assert group(users, 1, version=2) == ["a"]
    assert group(users, 1, version=2) == ["b"]  # not "a" once more
    assert group(users, version=2) == []


def test_failed_users_who_were_forgotten_are_not_due() -> None:
    users = ActiveUsers(10)
    act(users, "a")
    failed = users.next_group(1, (1, 0), LATER)
    users.forget("a")
    users.again(failed)
    users.written(failed[0], (1, 0), 1.0, NOW_MS)
    assert (users.due, len(users), group(users, version=2)) == (0, 0, [])


def test_at_rest_the_stalest_list_comes_first() -> None:
    users = ActiveUsers(10)
    settle(users, "a", "b", "c", "d")
    assert group(users, 2, version=2) == ["a", "b"]
    write(users, "b", "a", version=2, now=5.0)
    assert group(users, version=3) == ["c", "d", "b", "a"]


def test_lists_of_the_same_version_or_too_young_stay() -> None:
    users = ActiveUsers(10)
    settle(users, "a", "b", "c")
    assert group(users, version=1) == []
    assert group(users, version=2, written_before=2.0) == ["a", "b"]
    assert group(users, version=2, written_before=2.5) == []


def test_users_taken_do_not_come_again_before_they_are_written() -> None:
    users = ActiveUsers(10)
    settle(users, "a", "b")
    act(users, "a", 5)
    assert group(users, 1, version=2) == ["a"]
    assert group(users, 5, version=2) == ["b"]
    assert group(users, 5, version=3) == []
    write(users, "a", "b", version=2, now=3.0)
    assert group(users, 5, version=3) == ["a", "b"]


def test_a_look_at_current_lists_does_not_change_who_is_stalest() -> None:
    users = ActiveUsers(10)
    settle(users, "a", "b", "c", "d")
    act(users, "a", 9)
    assert group(users, 1) == ["a"]
    write(users, "a", now=9.0)
    assert group(users, version=1, written_before=3.0) == []  # "b" and "c" are looked at
    users.add(ActiveUser("new", b"", UserHistory()))
    assert group(users, version=2) == ["new", "b", "c", "d", "a"]


def test_a_call_looks_at_few_current_lists_and_the_next_one_goes_on() -> None:
    users = ActiveUsers(1000)
    names = [f"u{n}" for n in range(LOOKS_PER_LIST * 2)]
    settle(users, *names, version=5)
    settle(users, "old", version=4)
    write(users, "old", version=4, now=1e6)
    assert group(users, 1, version=5) == []
    assert group(users, 1, version=5) == []
    assert group(users, 1, version=5) == ["old"]


def test_lists_of_other_items_that_may_be_listed_are_stale() -> None:
    users = ActiveUsers(10)
    settle(users, "a")
    assert users.next_group(1, (1, 0), LATER) == []
    assert [user.user_id for user in users.next_group(1, (1, 1), LATER)] == ["a"]


def test_a_version_taken_back_makes_newer_lists_stale() -> None:
    users = ActiveUsers(10)
    settle(users, "a", version=4)
    settle(users, "b", version=5)
    assert group(users, version=4) == ["b"]
    assert group(users, version=5) == ["a"]


def test_a_group_of_nobody() -> None:
    users = ActiveUsers(10)
    assert group(users) == []
    settle(users, "a")
    act(users, "a", 2)
    assert group(users, 0, version=2) == []
    assert group(users, 1, version=2) == ["a"]


def test_a_user_read_anew_replaces_the_one_held() -> None:
    users = ActiveUsers(10)
    settle(users, "a", "b")
    fresh = ActiveUser("b", b"0" * 16, UserHistory(events_seen=7))
    users.add(fresh)
    assert users["b"] is fresh
    assert len(users) == 2
    assert group(users, version=2) == ["b", "a"]


def test_forgotten_users_leave_nothing() -> None:
    users = ActiveUsers(10)
    settle(users, "a", "b", "c")
    act(users, "b", 5)
    users.learned(from_topics({"events": {"0": 1}}))
    for name in ("a", "b", "nobody"):
        users.forget(name)
    assert ("a" in users, "c" in users, len(users), users.due) == (False, True, 1, 0)
    users.learned(from_topics({"events": {"0": 100}}))
    assert group(users, version=2) == ["c"]


def test_users_of_lost_partitions_are_forgotten() -> None:
    users = ActiveUsers(10)
    act(users, "here", 0)
    act(users, "there", 0, THERE)
    act(users, "both", 1)
    act(users, "both", 1, THERE)
    users.forget_partitions([THERE, TopicPartition("events", 9)])
    assert ("here" in users, "there" in users, "both" in users) == (True, False, False)
    assert group(users) == ["here"]
    users.forget_partitions([])
    assert "here" in users
    act(users, "there", 7, THERE)  # the partition comes back, further on
    write(users, *group(users))
    users.learned(from_topics({"events": {"1": 7}}))
    assert group(users, written_before=0) == []
    users.learned(from_topics({"events": {"1": 8}}))
    assert group(users, written_before=0) == ["there"]


def test_quiet_users_are_forgotten() -> None:
    users = ActiveUsers(10)
    for n, name in enumerate("abc"):
        act(users, name, n, ms=100 + n)
    act(users, "a", 3, ms=110)
    write(users, *group(users))
    users.forget_quiet(102)
    assert ("a" in users, "b" in users, "c" in users) == (True, False, True)
    users.forget_quiet(0)
    assert len(users) == 2


def test_who_waits_for_a_list_is_not_forgotten_for_being_quiet() -> None:
    users = ActiveUsers(2)
    act(users, "a", 0, ms=1)
    act(users, "b", 1, ms=2)
    users.forget_quiet(NOW_MS)
    assert group(users, 1) == ["a"]
    write(users, "a")
    users.forget_quiet(NOW_MS)
    assert ("a" in users, "b" in users) == (False, True)
    act(users, "c", 2, ms=3)
    act(users, "d", 3, ms=4)
    users.forget_quiet(NOW_MS)  # the limit holds all the same
    assert group(users) == ["c", "d"]
    users.forget_quiet(NOW_MS)
    assert len(users) == 2  # their lists are under way
    write(users, "c", "d")
    users.forget_quiet(NOW_MS)
    assert len(users) == 0
    act(users, "e", 4, ms=5)
    act(users, "f", 5, ms=6)
    write(users, "e", empty=True)  # there may be something to list for them later
    write(users, "f")
    users.forget_quiet(NOW_MS)
    assert ("e" in users, "f" in users) == (True, False)  # who waits holds up nobody behind


def test_beyond_the_limit_the_quietest_are_forgotten() -> None:
    users = ActiveUsers(2)
    for n, name in enumerate("abcd"):
        act(users, name, n)
    act(users, "a", 4)
    users.forget_quiet(0)
    assert [name in users for name in "abcd"] == [True, False, False, True]
    assert group(users) == ["a", "d"]


def test_users_from_storage_do_not_push_out_those_who_act() -> None:
    users = ActiveUsers(2)
    act(users, "a", 0, ms=100)
    for name, ms in (("recent", 90), ("older", 80)):  # the latest first
        users.add(ActiveUser(name, b"", UserHistory(last_event_ms=ms)))
    users.forget_quiet(0)
    assert [name in users for name in ("a", "recent", "older")] == [True, True, False]
    users.forget_quiet(95)
    assert [name in users for name in ("a", "recent")] == [True, False]


def test_users_with_unsaved_events_stay() -> None:
    users = ActiveUsers(1)
    user = act(users, "a", 0, ms=1)
    act(users, "b", 1, ms=2)
    write(users, *group(users))
    user.unsaved.append(taken("a"))
    users.forget_quiet(NOW_MS)
    assert "a" in users
    user.unsaved.clear()
    users.forget_quiet(NOW_MS)
    assert len(users) == 0


NAMES = [f"u{n}" for n in range(6)]
PLACES = [HERE, THERE]


class Order(RuleBasedStateMachine):
    """Against a plain restatement: three lists, searched from the front."""

    @initialize(limit=st.integers(1, 6))
    def begin(self, limit: int) -> None:
        self.limit = limit
        self.users = ActiveUsers(limit)
        self.now = 1.0
        self.version = 1
        self.due: list[str] = []
        self.learned: list[str] = []
        self.rest: list[tuple[str, float, int | None]] = []  # by when the list was written
        self.known: list[str] = []  # by latest event
        self.latest: dict[str, int] = {}
        self.read: dict[str, set[TopicPartition]] = {}
        self.waiting: dict[TopicPartition, deque[tuple[int, str]]] = {place: deque() for place in PLACES}
        self.ends = dict.fromkeys(PLACES, 0)
        self.flying: list[ActiveUser] = []
        self.unanswered: set[str] = set()

    def gone(self, name: str) -> None:
        self.known.remove(name)
        self.due = [other for other in self.due if other != name]
        self.learned = [other for other in self.learned if other != name]
        self.rest = [entry for entry in self.rest if entry[0] != name]
        del self.read[name]
        self.unanswered.discard(name)

    @rule(name=st.sampled_from(NAMES), where=st.sampled_from(PLACES))
    def acts(self, name: str, where: TopicPartition) -> None:
        offset = self.ends[where]
        self.ends[where] += 1
        if name in self.known:
            self.known.remove(name)
        else:
            self.rest.insert(0, (name, 0.0, None))
            self.read[name] = set()
        self.known.append(name)
        self.read[name].add(where)
        self.latest[name] = int(self.now)
        self.unanswered.add(name)
        if name not in self.due:
            self.due.append(name)
        if name in self.learned:
            self.learned.remove(name)
        self.waiting[where].append((offset, name))
        act(self.users, name, offset, where, int(self.now))

    @rule(back=st.integers(0, 3), where=st.sampled_from(PLACES), new=st.booleans())
    def learns(self, back: int, where: TopicPartition, new: bool) -> None:
        self.version += new
        through = self.ends[where] - back
        while self.waiting[where] and self.waiting[where][0][0] < through:
            name = self.waiting[where].popleft()[1]
            if name in self.known and name not in self.due and name not in self.learned:
                self.learned.append(name)
        self.users.learned(from_topics({"events": {str(where.partition): through}}))

    @rule(back=st.integers(1, 3))
    def rolls_back(self, back: int) -> None:
        self.version = max(1, self.version - back)

    @rule(size=st.integers(0, 4), age=st.sampled_from([0.0, 2.0, 5.0]))
    def takes_a_group(self, size: int, age: float) -> None:
        before = self.now - age
        names = (self.due + self.learned)[:size]
        self.due = [name for name in self.due if name not in names]
        self.learned = [name for name in self.learned if name not in names]
        self.rest = [entry for entry in self.rest if entry[0] not in names]
        stale = [name for name, when, version in self.rest if when <= before and version != self.version]
        stale = stale[: size - len(names)]
        found = self.users.next_group(size, (self.version, 0), before)
        names += stale
        assert [user.user_id for user in found] == names
        self.rest = [entry for entry in self.rest if entry[0] not in names]
        self.flying += found

    @rule(good=st.booleans(), empty=st.booleans())
    def group_ends(self, good: bool, empty: bool) -> None:
        for user in {id(user): user for user in self.flying}.values():
            name = user.user_id
            if name not in self.users or self.users[name] is not user:
                continue  # forgotten meanwhile
            if good:
                self.rest = [entry for entry in self.rest if entry[0] != name]
                self.rest.append((name, self.now, self.version))
                if empty:
                    self.unanswered.add(name)
                else:
                    self.unanswered.discard(name)
                self.users.written(user, (self.version, 0), self.now, int(self.now), empty=empty)
            else:
                if name not in self.due:
                    self.due.append(name)
                if name in self.learned:
                    self.learned.remove(name)
                self.users.again([user])
        self.flying = []

    @rule(seconds=st.integers(1, 4))
    def waits(self, seconds: int) -> None:
        self.now += seconds

    @rule(name=st.sampled_from(NAMES))
    def forgets(self, name: str) -> None:
        if name in self.known:
            self.gone(name)
        self.users.forget(name)

    @rule(where=st.sampled_from(PLACES))
    def loses_a_partition(self, where: TopicPartition) -> None:
        for name in [name for name in self.known if where in self.read[name]]:
            self.gone(name)
        self.waiting[where].clear()
        self.users.forget_partitions([where])

    @rule(age=st.integers(0, 9))
    def forgets_the_quiet(self, age: int) -> None:
        before = int(self.now) - age
        quiet = list(takewhile(lambda name: self.latest[name] < before, self.known))
        for name in quiet:
            if name not in self.unanswered:
                self.gone(name)
        while len(self.known) > self.limit:
            self.gone(self.known[0])
        self.users.forget_quiet(before)
        assert len(self.users) <= self.limit

    @invariant()
    def nobody_is_lost_or_invented(self) -> None:
        if not hasattr(self, "users"):
            return
        assert len(self.users) == len(self.known)
        assert self.users.due == len(self.due)
        assert all((name in self.users) == (name in self.known) for name in NAMES)


TestOrder = Order.TestCase
TestOrder.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)


def test_the_latest_to_act_come_first_out_of_turn_and_only_once() -> None:
    users = ActiveUsers(10)
    settle(users, "a", "b", "c", "d")  # written at 1, 2, 3, 4 by version 1
    assert not users.pressing

    def latest(size: int, version: int, written_before: float) -> list[str]:
        return [user.user_id for user in users.latest_group(size, (version, 0), written_before)]

    assert latest(2, 1, LATER) == []  # all of the newest version
    assert latest(2, 2, 3.5) == ["c", "b"]  # d's list is too young
    assert latest(2, 2, 3.5) == ["a"]
    assert latest(2, 2, 3.5) == []
    assert group(users, version=2) == ["d"]
    write(users, "c", version=2, now=9.0)
    assert latest(2, 3, LATER) == ["c"]
    act(users, "b", 9)
    assert users.pressing
