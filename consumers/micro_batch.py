"""A micro-batch: a stretch of the stream as columns, with the offsets it covers."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from consumers.records import OffsetRange, TopicPartition


@dataclass(frozen=True, slots=True)
class ItemChange:
    """One accepted record of the `items` topic."""

    item_id: str
    deleted: bool = False
    available: bool = True
    title: str = ""
    category: str = ""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """n accepted events, the catalogue changes, and what else was read: partition after partition, in offset order.

    `users` and `items` hold each id of the batch once, in order of first appearance; `user` and `item` index them.
    """

    users: tuple[str, ...]
    items: tuple[str, ...]
    user: NDArray[np.int32]  # [n] index into users
    item: NDArray[np.int32]  # [n] index into items; -1 where the event has none (a search)
    type: NDArray[np.int16]  # [n] index into the configured event types
    ts: NDArray[np.int64]  # [n] when it happened, epoch milliseconds
    value: NDArray[np.float64]  # [n] NaN where the event carries none
    event_key: NDArray[np.int64]  # [n] 64-bit hash of event_id, or of topic-partition-offset where there is none
    kafka_ts: NDArray[np.int64]  # [n] the record's Kafka timestamp, epoch milliseconds
    catalogue: tuple[ItemChange, ...]
    ranges: tuple[OffsetRange, ...]  # every record read, rejects too; at most one range a partition
    records: int = 0  # how many the ranges held: fewer than offsets if a log was compacted or had transactions
    rejected: dict[str, int] = field(default_factory=dict)  # reason -> how many
    # (topic, partition, offset) of the rejects with `ts_in_future`: read again later they would be accepted
    ahead: tuple[tuple[str, int, int], ...] = ()
    misrouted: int = 0  # events whose key was not their user_id
    expired: dict[TopicPartition, int] = field(default_factory=dict)  # records lost to retention before being read
    end_offsets: dict[TopicPartition, int] = field(default_factory=dict)  # the partitions' ends when last heard of

    def __len__(self) -> int:
        return len(self.user)
