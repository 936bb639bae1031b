"""How long events wait: until a list reflects them, and until a list is scored by weights that have learned from them.

Pure: no I/O, the clock is passed in. In each of the two stages an event is measured, or counted as left out, or counted
as one whose Kafka timestamp cannot be when it was written (a producer in seconds, a clock that is wrong, a copy of
another cluster's records): one of those would make the sum of all worthless. What waits is bounded, however long there
is no version to score with: by WAITING events a stage, PER_USER of them of one user, and UNLEARNED_PER_PARTITION events
that no version has learned from.
"""

from collections import deque
from collections.abc import Callable, Container, Iterable

from consumers.records import Offsets, TopicPartition

AHEAD_MS = 1000  # by so much the clocks of machines may differ; the event counts as just written
OLD_MS = 30 * 60_000  # a clock that is an hour off is told from one that is right; so is a backlog, which the lag shows

HISTORY = "history"  # until a list reflects the event as input
LEARNED = "learned"  # until a list is scored by weights that have learned from it
STAGES = (HISTORY, LEARNED)

WAITING = 200_000  # 16 MB; at 500 events a second lists are 400 s behind before it is reached
PER_USER = 200  # between two lists of one user are mostly one or two events
UNLEARNED_PER_PARTITION = 200_000  # 30 MB; the trainer is a second behind, at 50,000 events a second 10,000


class Freshness:
    def __init__(
        self,
        observe: Callable[[str, float], None] = lambda stage, seconds: None,
        left_out: Callable[[str, int], None] = lambda stage, events: None,
        implausible: Callable[[str, str], None] = lambda stage, time: None,
    ) -> None:
        """`observe` takes how long an event has waited in a stage; `left_out` how many are not measured; `implausible`
        whether the Kafka timestamp of one is `ahead` of now or too `old`."""
        self._observe, self._left_out, self._implausible = observe, left_out, implausible
        self._waiting: dict[str, dict[str, list[int]]] = {stage: {} for stage in STAGES}  # user -> Kafka's timestamps
        self._count = dict.fromkeys(STAGES, 0)  # of events in `_waiting`
        # events that no version has learned from: (offset, user, Kafka's timestamp in epoch milliseconds)
        self._unlearned: dict[TopicPartition, deque[tuple[int, str, int]]] = {}

    @property
    def held(self) -> int:
        """How many events are remembered; one may be in both stages."""
        return sum(self._count.values()) + sum(map(len, self._unlearned.values()))

    def acted(self, user_id: str, where: TopicPartition, offset: int, kafka_ms: int) -> None:
        """An event was taken into its user's history; of a partition in the order of offsets."""
        self._wait(HISTORY, user_id, kafka_ms)
        queue = self._unlearned.setdefault(where, deque())
        if len(queue) >= UNLEARNED_PER_PARTITION:
            queue.popleft()
            self._left_out(LEARNED, 1)
        queue.append((offset, user_id, kafka_ms))

    def learned(self, trained_through: Offsets, known: Container[str]) -> list[str]:
        """There are weights that have learned from all before these offsets: the users of the events that they newly
        learned from, in the order of the events, if they are among the `known`."""
        users = []
        for where, queue in self._unlearned.items():
            through = trained_through.get(where, 0)
            while queue and queue[0][0] < through:
                _, user_id, kafka_ms = queue.popleft()
                if user_id in known:
                    users.append(user_id)
                    self._wait(LEARNED, user_id, kafka_ms)
                else:
                    self._left_out(LEARNED, 1)
        return users

    def written(self, user_id: str, now_ms: int) -> None:
        """The user's list is in Redis since `now_ms`: it reflects all their events, by the weights last told of."""
        for stage in STAGES:
            for kafka_ms in self._taken(stage, user_id):
                age_ms = now_ms - kafka_ms
                if age_ms < -AHEAD_MS:
                    self._implausible(stage, "ahead")
                elif age_ms > OLD_MS:
                    self._implausible(stage, "old")
                else:
                    self._observe(stage, max(0, age_ms) / 1000)

    def forget(self, user_id: str) -> None:
        for stage in STAGES:
            if gone := self._taken(stage, user_id):
                self._left_out(stage, len(gone))

    def lose(self, partitions: Iterable[TopicPartition]) -> None:
        """Another scorer has them now."""
        for where in partitions:
            if gone := self._unlearned.pop(where, None):
                self._left_out(LEARNED, len(gone))

    def _wait(self, stage: str, user_id: str, kafka_ms: int) -> None:
        of_user = self._waiting[stage].get(user_id, [])
        if self._count[stage] >= WAITING or len(of_user) >= PER_USER:
            self._left_out(stage, 1)
            return
        self._waiting[stage][user_id] = of_user
        self._count[stage] += 1
        of_user.append(kafka_ms)

    def _taken(self, stage: str, user_id: str) -> list[int]:
        taken = self._waiting[stage].pop(user_id, [])
        self._count[stage] -= len(taken)
        return taken
