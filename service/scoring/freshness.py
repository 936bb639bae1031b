"""How long events wait: until a list reflects them, and until a list is scored by weights that have learned from them.

Pure: no I/O, the clock is passed in. In each of these two stages every event is either measured, or counted as left
out, or counted as implausible. An event is implausible where its Kafka timestamp cannot be the time of writing (a
producer that writes seconds, a wrong clock, a copy of another cluster's records): one such event would make the sum
worthless.

Memory is bounded, however long there is no version to score with: WAITING events a stage, PER_USER of them of one user,
and UNLEARNED_PER_PARTITION events that no version has learned from.
"""

from collections import deque
from collections.abc import Callable, Container, Iterable

from consumers.records import Offsets, TopicPartition

AHEAD_MS = 1000  # the clocks of two machines may differ by this; an event from the near future counts as just written
OLD_MS = 30 * 60_000  # below an hour, by which clocks are often wrong. A backlog of more is shown by the lag

HISTORY = "history"  # until a list reflects the event as input
LEARNED = "learned"  # until a list is scored by weights that have learned from it
STAGES = (HISTORY, LEARNED)

WAITING = 200_000  # 16 MB; at 500 events a second lists are 400 s behind before it is reached
PER_USER = 200  # mostly one or two events come between two lists of a user
UNLEARNED_PER_PARTITION = 200_000  # 30 MB; a trainer that is a second behind at 50,000 events a second needs 10,000


class Freshness:
    """Measures the waiting time of events in the stages HISTORY and LEARNED."""

    def __init__(
        self,
        observe: Callable[[str, float], None] = lambda stage, seconds: None,
        left_out: Callable[[str, int], None] = lambda stage, events: None,
        implausible: Callable[[str, str], None] = lambda stage, time: None,
    ) -> None:
        """observe: called with (stage, seconds that an event has waited). left_out: with (stage, events not measured).
        implausible: with (stage, "ahead" or "old") for an event whose Kafka timestamp is after now, or too old."""
        self._observe, self._left_out, self._implausible = observe, left_out, implausible
        self._waiting: dict[str, dict[str, list[int]]] = {stage: {} for stage in STAGES}  # user -> Kafka's timestamps
        self._count = dict.fromkeys(STAGES, 0)  # of events in `_waiting`
        # events that no version has learned from: (offset, user, Kafka's timestamp in epoch milliseconds)
        self._unlearned: dict[TopicPartition, deque[tuple[int, str, int]]] = {}

    @property
    def held(self) -> int:
        """How many events are in memory; one may be in both stages."""
        return sum(self._count.values()) + sum(map(len, self._unlearned.values()))

    def acted(self, user_id: str, where: TopicPartition, offset: int, kafka_ms: int) -> None:
        """To be called when an event was taken into its user's history; for each partition in the order of offsets."""
        self._wait(HISTORY, user_id, kafka_ms)
        queue = self._unlearned.setdefault(where, deque())
        if len(queue) >= UNLEARNED_PER_PARTITION:
            queue.popleft()
            self._left_out(LEARNED, 1)
        queue.append((offset, user_id, kafka_ms))

    def learned(self, trained_through: Offsets, known: Container[str]) -> list[str]:
        """To be called when there are weights that have learned from everything before these offsets.

        Returns the users of the events newly learned from, those among `known`, in the order of the events.
        """
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
        """To be called when the user's list is in Redis at `now_ms`. It reflects all events of the user, and was scored
        by the weights of the last call of `learned`."""
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
        """Leaves out the waiting events of a user."""
        for stage in STAGES:
            if gone := self._taken(stage, user_id):
                self._left_out(stage, len(gone))

    def lose(self, partitions: Iterable[TopicPartition]) -> None:
        """Leaves out the unlearned events of partitions that another scorer reads from now on."""
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
