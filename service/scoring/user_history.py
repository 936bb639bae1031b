"""What a scorer knows of one user: their latest items, how many events, and how far each partition has been read.

The stored form is JSON (`tidemill:history:<user_id>`), so that a scorer of any version, or a person, can read it. It
starts with a stamp of 16 hex digits that changes with each write: a writer must know the stamp it replaces, so a scorer
that lost the user's partition without noticing cannot overwrite what its successor wrote.
"""

import re
from dataclasses import dataclass, field

import orjson

from consumers.events import Interaction
from consumers.records import TopicPartition

REMEMBERED_EVENT_IDS = 64  # the contract promises at least 50
REMEMBERED_ITEMS = 500  # for lists that hide what was bought or seen
STAMP_BYTES = 16


class DamagedHistory(ValueError):
    """The stored bytes are not a history."""


@dataclass(slots=True)
class UserHistory:
    items: list[str] = field(default_factory=list)  # latest last, at most the model's history length
    events_seen: int = 0  # accepted events, duplicates not counted
    next_offsets: dict[TopicPartition, int] = field(default_factory=dict)
    event_ids: list[str] = field(default_factory=list)  # latest last, at most REMEMBERED_EVENT_IDS
    hidden: list[str] = field(default_factory=list)  # items that lists leave out, latest last
    last_event_ms: int = 0  # Kafka timestamp of the latest event taken, epoch milliseconds
    log: str = ""  # names the topic, or the cluster, that `next_offsets` are of; empty where that is not known

    def has_read(self, where: TopicPartition, offset: int) -> bool:
        return offset < self.next_offsets.get(where, 0)

    def go_on_in(self, log: str) -> None:
        """Of a topic made anew, or of another cluster, nothing has been read yet; the rest of the history stays."""
        if self.log and log and self.log != log:
            self.next_offsets = {}
        self.log = log or self.log

    def covers(self, other: "UserHistory") -> bool:
        """Whether every record that `other` has read was read here too."""
        return all(self.has_read(where, offset - 1) for where, offset in other.next_offsets.items() if offset > 0)

    def take(
        self,
        event: Interaction,
        where: TopicPartition,
        offset: int,
        kafka_ms: int,
        *,
        weight: float,
        length: int,
        hide: str,
    ) -> bool:
        """Takes one event in; False for one the sender had sent before, which changes nothing but the offset.

        `weight` is that of the event's type; types of weight 0 count and are not part of the history. `hide` is the
        setting `hide_seen`. Events must come in the order of their partition, and `has_read` be asked first.
        """
        self.next_offsets[where] = offset + 1
        if event.event_id is not None:
            if event.event_id in self.event_ids:
                return False
            self.event_ids.append(event.event_id)
            del self.event_ids[:-REMEMBERED_EVENT_IDS]
        self.events_seen += 1
        self.last_event_ms = max(self.last_event_ms, kafka_ms)
        if event.item_id is not None and weight > 0:
            self.items.append(event.item_id)
            del self.items[:-length]
        if event.item_id is not None and (hide == "all" or (hide == "bought" and event.type == "purchase")):
            if event.item_id in self.hidden:
                self.hidden.remove(event.item_id)
            self.hidden.append(event.item_id)
            del self.hidden[:-REMEMBERED_ITEMS]
        return True

    def encode(self, stamp: bytes) -> bytes:
        """The stored form, which begins with `{"stamp":"<16 hex digits>"`."""
        offsets: dict[str, dict[str, int]] = {}
        for (topic, partition), offset in self.next_offsets.items():
            offsets.setdefault(topic, {})[str(partition)] = offset
        body = {
            "items": self.items,
            "events_seen": self.events_seen,
            "next_offsets": offsets,
            "event_ids": self.event_ids,
            "hidden": self.hidden,
            "last_event_ms": self.last_event_ms,
            "log": self.log,
        }
        return b'{"stamp":"' + stamp + b'",' + orjson.dumps(body)[1:]


STAMP_START = len(b'{"stamp":"')
"""Where the stamp begins in the stored form; it ends STAMP_BYTES further."""

_STAMPED = re.compile(rb'\{"stamp":"([0-9a-fA-F]{16})"')


def decode_history(raw: bytes) -> tuple[bytes, UserHistory]:
    """The stamp and the history; `DamagedHistory` when the bytes are something else.

    Nothing is converted: what comes out can be encoded again. Unknown fields are ignored, so that a later version may
    add some.
    """
    stamped = _STAMPED.match(raw)
    if stamped is None:
        raise DamagedHistory(f"not a history: it does not begin with its stamp: {raw[:60]!r}")
    try:
        body = orjson.loads(raw)
        history = UserHistory(
            items=_strings(body["items"]),
            events_seen=_count(body["events_seen"]),
            next_offsets={
                TopicPartition(topic, _partition(partition)): _count(offset)
                for topic, offsets in body["next_offsets"].items()
                for partition, offset in offsets.items()
            },
            event_ids=_strings(body["event_ids"]),
            hidden=_strings(body["hidden"]),
            last_event_ms=_count(body["last_event_ms"]),
            log=_text(body.get("log", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedHistory(f"not a history: {raw[:60]!r}: {error}") from error
    return stamped[1], history


def _strings(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise TypeError("ids must be a list of strings")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("the log's name must be a string")
    return value


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("counts, offsets and times must be integers from 0 to 2^63 - 1")
    return value


def _partition(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise ValueError("partitions must be decimal numbers")
    return int(text)
