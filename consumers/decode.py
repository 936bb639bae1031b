"""Decodes records into events, catalogue changes and rejects.

Each record is parsed by itself: joined into one JSON array, a record whose bytes hold `},{` would count as two.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import ValidationError

from consumers.events import DEFAULT_EVENT_WEIGHTS, FUTURE_TOLERANCE_MS, TYPES_WITHOUT_ITEM, Interaction, Item
from consumers.micro_batch import ItemChange
from consumers.records import Record

_MAX_MESSAGE_CHARS = 400
_MAX_PROBLEMS = 3  # in one message

# Longer titles and categories are cut: batches stay small, and no text encoder reads more.
_MAX_TITLE_CHARS = 1000
_MAX_CATEGORY_CHARS = 256


class Reason(StrEnum):
    """Why a record was rejected: `error.code` of a dead letter and the label `reason` of the metric. A closed set."""

    NULL_VALUE = "null_value"  # a record of `events` without a value
    NOT_JSON = "not_json"  # not one JSON text: random bytes, bad UTF-8, lone surrogates, NaN, nested too deeply
    NOT_AN_OBJECT = "not_an_object"  # JSON, but not an object
    MISSING_FIELD = "missing_field"  # a required field is not there
    INVALID_FIELD = "invalid_field"  # a field's type, length or range
    UNKNOWN_TYPE = "unknown_type"  # an event type that is not configured
    TS_IN_FUTURE = "ts_in_future"  # further ahead of the reader's clock than is tolerated
    INVALID_KEY = "invalid_key"  # a deletion on `items` whose key is not an item id
    KEY_MISMATCH = "key_mismatch"  # an item whose key is not its item_id


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that was rejected, and why: `code` for machines, `message` for people."""

    record: Record
    code: Reason
    message: str


@dataclass(frozen=True, slots=True)
class DecodeRules:
    """What is accepted. `event_types` maps each accepted type to its weight; its order numbers the types."""

    event_types: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_EVENT_WEIGHTS))
    items_topic: str = "items"  # records of every other topic are events
    future_tolerance_ms: int = FUTURE_TOLERANCE_MS


Outcome = Interaction | ItemChange | Reject


@dataclass(frozen=True, slots=True)
class Decoded:
    """Records, each with its outcome."""

    records: Sequence[Record]
    outcomes: Sequence[Outcome]  # as many as records, in their order

    @property
    def events(self) -> list[Interaction]:
        return [o for o in self.outcomes if isinstance(o, Interaction)]

    @property
    def rejects(self) -> list[Reject]:
        return [o for o in self.outcomes if isinstance(o, Reject)]


def decode(records: Sequence[Record], rules: DecodeRules, now_ms: int) -> Decoded:
    """Each record as an event, a change of the catalogue, or a reject.

    `now_ms` is the reader's clock, epoch milliseconds. Never raises, whatever the bytes.
    """
    types, items_topic = rules.event_types, rules.items_topic
    latest_ts = now_ms + rules.future_tolerance_ms
    # The validator itself: `model_validate_json` would add a Python call to every record.
    validate = Interaction.__pydantic_validator__.validate_json
    outcomes: list[Outcome] = []
    keep = outcomes.append
    for record in records:
        value = record.value
        if record.topic == items_topic:
            keep(_decode_item(record))
        elif value is None:
            keep(Reject(record, Reason.NULL_VALUE, "an event needs a value"))
        else:
            try:
                event: Interaction = validate(value)
            except ValidationError as error:
                keep(_reject_invalid(record, error))
                continue
            if event.type not in types:
                keep(Reject(record, Reason.UNKNOWN_TYPE, f"type {_shown(event.type)} is not configured"))
            elif event.item_id is None and event.type not in TYPES_WITHOUT_ITEM:
                keep(Reject(record, Reason.MISSING_FIELD, f"item_id: required for type {_shown(event.type)}"))
            elif event.ts > latest_ts:
                ahead = (event.ts - now_ms) / 3_600_000
                keep(Reject(record, Reason.TS_IN_FUTURE, f"ts: {event.ts} ms is {ahead:.1f} h ahead of the clock"))
            else:
                keep(event)
    return Decoded(records, outcomes)


def _decode_item(record: Record) -> ItemChange | Reject:
    """A catalogue record. Its key must be the item id, because compaction and deletion go by the key."""
    if record.value is None:
        return _decode_deletion(record)
    try:
        item = Item.__pydantic_validator__.validate_json(record.value)
    except ValidationError as error:
        return _reject_invalid(record, error)
    if record.key != item.item_id.encode():
        return Reject(record, Reason.KEY_MISMATCH, f"the key is not the item_id {_shown(item.item_id)}")
    return ItemChange(
        item.item_id,
        available=item.available is not False,
        title=item.title[:_MAX_TITLE_CHARS],
        category=(item.category or "")[:_MAX_CATEGORY_CHARS],
    )


def _decode_deletion(record: Record) -> ItemChange | Reject:
    try:
        item_id = (record.key or b"").decode()
    except UnicodeDecodeError:
        return Reject(record, Reason.INVALID_KEY, "the key of the deletion is not UTF-8")
    if not 1 <= len(item_id) <= 256:
        return Reject(record, Reason.INVALID_KEY, "the key of the deletion is not an id of 1 to 256 characters")
    return ItemChange(item_id, deleted=True)


_BEGINNINGS = {
    b"\x00": "it begins as a schema registry's serializer frames records (a zero and a schema's number)",
    b"\xef\xbb\xbf": "it begins with a byte order mark",
    b"\xff\xfe": "it seems to be UTF-16",
    b"\xfe\xff": "it seems to be UTF-16",
    b"\x1f\x8b": "it seems to be gzip",
}
_CODES = {"json_invalid": Reason.NOT_JSON, "model_type": Reason.NOT_AN_OBJECT, "missing": Reason.MISSING_FIELD}


def _reject_invalid(record: Record, error: ValidationError) -> Reject:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    code = _CODES.get(problems[0]["type"], Reason.INVALID_FIELD)
    message = "; ".join(_problem(p["loc"], p["msg"]) for p in problems[:_MAX_PROBLEMS])
    if code is Reason.NOT_JSON and (kind := _kind_of(record.value or b"")):
        message = f"{kind}, and not plain JSON: {message}"
    if len(problems) > _MAX_PROBLEMS:
        message += f"; and {len(problems) - _MAX_PROBLEMS} more"
    return Reject(record, code, message[:_MAX_MESSAGE_CHARS])


def _kind_of(value: bytes) -> str:
    """What bytes that are not JSON seem to be, by how they begin; '' if unknown."""
    return next((kind for beginning, kind in _BEGINNINGS.items() if value.startswith(beginning)), "")


def _problem(where: Iterable[int | str], what: str) -> str:
    place = ".".join(str(part)[:40] for part in where)
    return f"{place}: {what}" if place else what


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
