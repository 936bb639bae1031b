"""The history of one user as a scorer keeps it: the latest items, how many events, how far each partition was read.

The stored form is JSON (`tidemill:history:<user_id>`), so that scorers of other releases, and people, can read it. It
begins with a stamp of 16 hex digits that changes with each write. A writer must know the stamp that it replaces, so a
scorer that lost the user's partition without noticing cannot overwrite what its successor wrote.
"""

import re
import sys
from array import array
from dataclasses import dataclass, field

import orjson

from consumers.batcher import id_digest
from consumers.events import Interaction
from consumers.records import TopicPartition
from service.model.history import LATEST, NO_KEY, HistoryRule, accept, key_of

REMEMBERED_ITEMS = 500  # at most so many items in `hidden`, and as many in `disliked`
STAMP_BYTES = 16


class DamagedHistory(ValueError):
    """The stored bytes are not a history."""


@dataclass(slots=True)
class UserHistory:
    items: list[str] = field(default_factory=list)  # latest last, at most `HistoryRule.length`
    events_seen: int = 0  # accepted events, duplicates not counted
    next_offsets: dict[TopicPartition, int] = field(default_factory=dict)
    event_keys: "array[int]" = field(default_factory=lambda: array("q"))  # of the latest accepted events, latest last
    hidden: list[str] = field(default_factory=list)  # items hidden by the setting `hide_seen`, latest last
    disliked: list[str] = field(default_factory=list)  # items disliked and not wanted since, latest last
    last_event_ms: int = 0  # Kafka timestamp of the latest event taken, epoch milliseconds
    last_item_ms: int | None = None  # `ts` of the latest event in `items`, epoch milliseconds; None: not known
    log: str = ""  # names the topic, or the cluster, that `next_offsets` are of; empty where that is not known

    def has_read(self, where: TopicPartition, offset: int) -> bool:
        """Whether the record at this place was taken in already."""
        return offset < self.next_offsets.get(where, 0)

    def go_on_in(self, log: str) -> None:
        """Continues the history in `log`. Where that is another one (a topic made anew, another cluster), nothing of it
        has been read yet; the rest of the history stays."""
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
        rule: HistoryRule,
        hide: str,
    ) -> bool:
        """Takes one event in; False for one that its user has sent before, which changes nothing but the offset.

        `hide` is the setting `hide_seen`. Events must come in the order of their partition, and `has_read` be asked
        first.
        """
        self.next_offsets[where] = offset + 1
        # an event without an id is named by its place, of which `has_read` knows
        key = NO_KEY if event.event_id is None else key_of(id_digest(event.event_id))
        if not accept(self.event_keys, key):
            return False
        self.events_seen += 1
        self.last_event_ms = max(self.last_event_ms, kafka_ms)
        if (item := event.item_id) is not None:
            weight = rule.weight(event)
            if weight > 0:
                self.items.append(item)
                self.last_item_ms = event.ts
                del self.items[: -rule.length]
                self.disliked = [other for other in self.disliked if other != item]
            elif weight < 0:
                _remember(self.disliked, item)
            if hide == "all" or (hide == "bought" and event.type == "purchase"):
                _remember(self.hidden, item)
        return True

    def left_out(self, hide: str) -> list[str]:
        """The items that are not listed for this user."""
        return self.disliked if hide == "none" else self.disliked + self.hidden

    def encode(self, stamp: bytes) -> bytes:
        """The stored form, which begins with `{"stamp":"<16 hex digits>"`."""
        offsets: dict[str, dict[str, int]] = {}
        for (topic, partition), offset in self.next_offsets.items():
            offsets.setdefault(topic, {})[str(partition)] = offset
        body = {
            "items": self.items,
            "events_seen": self.events_seen,
            "next_offsets": offsets,
            "event_keys": _written(self.event_keys),
            "event_ids": [],  # releases that know no keys need it
            "hidden": self.hidden,
            "disliked": self.disliked,
            "last_event_ms": self.last_event_ms,
            "last_item_ms": self.last_item_ms,
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
            event_keys=_keys(body),
            hidden=_strings(body["hidden"]),
            disliked=_strings(body.get("disliked", [])),
            last_event_ms=_count(body["last_event_ms"]),
            last_item_ms=_time(body.get("last_item_ms")),
            log=_text(body.get("log", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedHistory(f"not a history: {raw[:60]!r}: {error}") from error
    return stamped[1], history


def _remember(items: list[str], item: str) -> None:
    """As the latest of at most REMEMBERED_ITEMS."""
    if item in items:
        items.remove(item)
    items.append(item)
    del items[:-REMEMBERED_ITEMS]


def _written(keys: "array[int]") -> str:
    """A comma after each: 16 hex digits, the digest of the event's id, or nothing where it had none."""
    digits = _as_stored(keys).tobytes().hex(",", 8)
    return digits.replace(_NO_DIGEST, "") + "," if keys else ""


_NO_DIGEST = "0" * 16


def _keys(body: dict[str, object]) -> "array[int]":
    """Earlier releases kept the ids themselves, and none for events without one."""
    if "event_keys" not in body:
        return array("q", [key_of(id_digest(event_id)) for event_id in _strings(body["event_ids"])])
    *digests, rest = _text(body["event_keys"]).split(",")
    if rest or not set(map(len, digests)) <= {0, len(_NO_DIGEST)}:
        raise ValueError("the events' keys must be of 16 hex digits each, or none, and a comma")
    keys = array("q")
    keys.frombytes(bytes.fromhex("".join([digest or _NO_DIGEST for digest in digests])))
    return _as_stored(keys)[-LATEST:]


def _as_stored(keys: "array[int]") -> "array[int]":
    """From this machine's order of bytes to little-endian, or back."""
    if sys.byteorder == "little":
        return keys
    turned = keys[:]
    turned.byteswap()
    return turned


def _strings(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise TypeError("ids must be a list of strings")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("the log's name and the events' keys must be strings")
    return value


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("counts, offsets and times must be integers from 0 to 2^63 - 1")
    return value


def _time(value: object) -> int | None:
    if value is not None and (type(value) is not int or not -(2**63) <= value < 2**63):
        raise ValueError("a time must be an integer of 64 bits")
    return value


def _partition(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise ValueError("partitions must be decimal numbers")
    return int(text)
