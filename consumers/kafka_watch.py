"""A thread that asks the broker for the ends of the partitions being read, and for new partitions.

The consumer's cached ends would not do: they stand still while nothing is fetched, so a reader that is held up would
report no lag. The thread uses its own client, because confluent_kafka lets one thread at a time use a consumer: asking
it while another thread polled took 30 s.
"""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import IsolationLevel, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import OffsetSpec as _OffsetSpec  # type: ignore[attr-defined]  # not in its `__all__`

from consumers.records import TopicPartition

FROM_BEGINNING = -2  # librdkafka's OFFSET_BEGINNING
ASK_TIMEOUT_S = 2.0
_RETRY_S = 0.5
_TOPICS_EVERY_S = 5.0  # how often to look for new partitions, once every topic is there
_SILENT_S = 4.0  # without an answer for so long the broker counts as away, whatever the client's timeouts


class _Refused(Exception):
    """The broker does not give the end of a partition; the message names the partition and says why."""


class KafkaWatch:
    """Runs from `start` to `close`. Safe to use from any thread."""

    def __init__(self, admin: AdminClient, every_s: float) -> None:
        self._admin, self._every_s = admin, every_s
        self._lock = threading.Lock()  # guards the attributes below, down to `_ends`
        self._starts: dict[str, Mapping[int, int]] = {}  # topics followed -> offsets to start at
        self._seen: dict[str, set[int]] = {}  # topics followed and described -> partitions known
        self._found: list[tuple[TopicPartition, int]] = []  # new partitions, and the offset to start at
        self._reading: set[TopicPartition] = set()
        self._ends: dict[TopicPartition, int] = {}

        self.idle_member = False  # the reader is a member of its group, and has no partition
        self._group: tuple[str, Sequence[str]] | None = None
        self._group_note = ""

        self._trouble = "no broker has answered yet"
        self._heard_at = time.monotonic()
        self._closed = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    def follow(self, topics: Mapping[str, Mapping[int, int]]) -> None:
        """Look for all partitions of these topics; those without an offset start at their earliest record."""
        with self._lock:
            self._starts.update({topic: dict(starts) for topic, starts in topics.items()})
        self._wake.set()

    def take_found(self) -> list[tuple[TopicPartition, int]]:
        """Partitions found since the last call, and the offset to start at; they then count as being read."""
        with self._lock:
            found, self._found = self._found, []
            self._reading.update(partition for partition, _ in found)
        if found:
            self._wake.set()  # to ask for their ends at once
        return found

    @property
    def all_taken(self) -> bool:
        """Whether every topic was looked for and every partition found was taken. A missing topic has none."""
        with self._lock:
            return not self._found and all(topic in self._seen for topic in self._starts)

    def read(self, partitions: Iterable[TopicPartition]) -> None:
        """These partitions are being read: ask for their ends too."""
        with self._lock:
            self._reading.update(partitions)
        self._wake.set()

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """These partitions are not being read."""
        with self._lock:
            for partition in partitions:
                self._reading.discard(partition)
                self._ends.pop(partition, None)

    def reads(self, partition: TopicPartition) -> bool:
        with self._lock:
            return partition in self._reading

    def ends(self) -> dict[TopicPartition, int]:
        """Per partition being read, its end as last heard: the offset after the last record that readers get."""
        with self._lock:
            return dict(self._ends)

    @property
    def trouble(self) -> str:
        """Why the broker does not answer this client; '' while it does."""
        if not self._trouble and time.monotonic() - self._heard_at > _SILENT_S + self._every_s:
            return "the broker has fallen silent"
        return self._trouble

    def explain_group(self, group: str, topics: Sequence[str]) -> None:
        """Find out why the reader has no partition, whenever it is an `idle_member` of this group on these topics."""
        self._group = (group, tuple(topics))

    @property
    def group_note(self) -> str:
        """Why the reader has no partition; '' while it has some."""
        return self._group_note if self.idle_member else ""

    # the thread

    def _run(self) -> None:
        topics_at = 0.0
        while not self._closed:
            try:
                if time.monotonic() >= topics_at:
                    all_there = self._look_for_partitions()
                    topics_at = time.monotonic() + (_TOPICS_EVERY_S if all_there else self._every_s)
                self._ask_ends()
                if self.idle_member and self._group is not None:
                    self._group_note = self._why_idle(*self._group)
                self._trouble, self._heard_at = "", time.monotonic()
            except KafkaException as error:
                self._trouble = f"asking for ends and partitions: {error.args[0].str()}"
            except _Refused as error:
                self._trouble = f"asking for the end of {error}"
            if self._wake.wait(min(self._every_s, _RETRY_S) if self._trouble else self._every_s):
                self._wake.clear()
                topics_at = 0.0

    def _look_for_partitions(self) -> bool:
        """Note new partitions; returns whether every topic followed exists."""
        # List all topics: when asked for one by name, a broker may make it, and `items` would not be compacted.
        described = self._admin.list_topics(timeout=ASK_TIMEOUT_S).topics
        with self._lock:
            topics = list(self._starts)
        for topic in topics:
            there = described.get(topic)
            if there is not None and there.error is not None:
                raise KafkaException(there.error)
            self._note_partitions(topic, set(there.partitions) if there is not None else set())
        return all(topic in described for topic in topics)

    def _note_partitions(self, topic: str, numbers: set[int]) -> None:
        with self._lock:
            first_look = topic not in self._seen
            known = self._seen.setdefault(topic, set())
            for number in sorted(numbers - known):
                # A partition that appears later is new, so its first record has offset 0.
                start = self._starts[topic].get(number, FROM_BEGINNING if first_look else 0)
                self._found.append((TopicPartition(topic, number), start))
            known |= numbers

    def _ask_ends(self) -> None:
        with self._lock:
            reading = sorted(self._reading)
        if not reading:
            return
        latest: Any = _OffsetSpec.latest()  # type: ignore[no-untyped-call]
        answers = self._admin.list_offsets(
            {KafkaPartition(*p): latest for p in reading},
            # Readers do not get records that a transaction has not committed.
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=ASK_TIMEOUT_S,
        )
        for asked, answer in answers.items():
            partition = TopicPartition(asked.topic, asked.partition)
            try:
                end = answer.result().offset
            except KafkaException as error:
                raise _Refused(f"{partition.name}: {error.args[0].str()}") from error
            with self._lock:
                if partition in self._reading:
                    self._ends[partition] = end

    def _why_idle(self, group: str, topics: Sequence[str]) -> str:
        described = self._admin.list_topics(timeout=ASK_TIMEOUT_S).topics
        if missing := [topic for topic in topics if topic not in described]:
            return f"no partition: topic {missing[0]} is not there yet"
        partitions = sum(len(described[topic].partitions) for topic in topics)
        try:
            answer = self._admin.describe_consumer_groups([group], request_timeout=ASK_TIMEOUT_S)[group].result()
        except KafkaException:  # not supported by the mock cluster, or not allowed
            return f"no partition: the other members of group {group} have all {partitions}"
        return f"no partition: {len(answer.members)} members, {partitions} partitions"
