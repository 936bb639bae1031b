"""Every input has a defined outcome; none raises."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from consumers.decode import DecodeRules, Outcome, Reason, Reject, decode
from consumers.events import Interaction, Item
from consumers.micro_batch import ItemChange
from consumers.records import Record
from consumers.times import EARLIEST_MS
from tests.consumers.samples import NOW_MS, event_json, event_record, item_json, item_record, streams

HOUR_MS = 3_600_000
TOO_LONG = "9" * 5000  # an integer of more digits than Python itself converts


def outcome_of(record: Record, rules: DecodeRules | None = None) -> Outcome:
    (outcome,) = decode([record], rules or DecodeRules(), NOW_MS).outcomes
    return outcome


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"user_id": "u1", "item_id": "i1", "type": "view", "ts": NOW_MS}),
        ({"ts": "2026-01-05T10:00:00.123+02:00"}, {"ts": NOW_MS + 123}),
        ({"ts": "2026-01-05T08:00:00.123456789Z"}, {"ts": NOW_MS + 123}),
        ({"ts": "2026-01-05 08:00Z"}, {"ts": NOW_MS}),
        ({"ts": "2026-01-05t08:00:00z"}, {"ts": NOW_MS}),
        ({"ts": "0001-01-01T00:00:00Z"}, {"ts": EARLIEST_MS}),
        ({"ts": EARLIEST_MS}, {"ts": EARLIEST_MS}),
        ({"ts": 0}, {"ts": 0}),
        ({"ts": -1}, {"ts": -1}),
        ({"ts": "1969-12-31T23:59:59.999Z"}, {"ts": -1}),
        ({"ts": 1_767_600_000}, {"ts": 1_767_600_000}),  # seconds, perhaps: not guessed, it is a day in 1970
        ({"ts": NOW_MS + 24 * HOUR_MS}, {"ts": NOW_MS + 24 * HOUR_MS}),
        ({"type": "search", "item_id": ...}, {"item_id": None}),
        ({"type": "search", "query": "lamp"}, {"query": "lamp", "item_id": "i1"}),
        ({"user_id": "é😀\u0000"}, {"user_id": "é😀\u0000"}),
        ({"user_id": "😀" * 256}, {"user_id": "😀" * 256}),
        ({"value": 10**29}, {"value": 1e29}),
        ({"value": 3}, {"value": 3.0}),
        ({"value": None, "event_id": None, "context": None}, {"value": None, "event_id": None, "context": None}),
        ({"context": {"a": 1, "b": 1.5, "c": None, "d": True, "e": "x"}}, {}),
        ({"context": {"a": 2**63 - 1}}, {"context": {"a": 2**63 - 1}}),
        ({"context": {"a": 2**64}}, {"context": {"a": float(2**64)}}),
        ({"context": {}}, {"context": {}}),
        ({"new_field": [1, {"x": 2}]}, {}),
        ({"type": "forget", "item_id": ...}, {"type": "forget", "item_id": None}),
        ({"type": "forget"}, {"type": "forget", "item_id": "i1"}),
    ],
)
def test_accepted_events(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    event = outcome_of(event_record(event_json(**changes)))
    assert isinstance(event, Interaction), event
    assert {name: getattr(event, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, Reason.NULL_VALUE),
        (b"", Reason.NOT_JSON),
        (b"\xff\x00", Reason.NOT_JSON),
        (b"\x00\x00\x00\x00\x2a" + event_json(), Reason.NOT_JSON),  # a schema registry's header
        (b"\xef\xbb\xbf" + event_json(), Reason.NOT_JSON),  # a byte order mark
        (event_json() + event_json(), Reason.NOT_JSON),
        (event_json() + b"," + event_json(), Reason.NOT_JSON),
        (event_json()[:-1], Reason.NOT_JSON),
        (b"[" * 100_000, Reason.NOT_JSON),
        (b'{"a":' * 100_000, Reason.NOT_JSON),
        (b'{"context":' * 300 + b"1" + b"}" * 300, Reason.NOT_JSON),
        (event_json(user_id="\ud800"), Reason.NOT_JSON),  # a lone surrogate
        (event_json().replace(b"u1", b"\xed\xa0\x80"), Reason.NOT_JSON),  # the same, encoded as if it were UTF-8
        (event_json(ts=7).replace(b"7", TOO_LONG.encode()), Reason.NOT_JSON),
        (b"null", Reason.NOT_AN_OBJECT),
        (b"[]", Reason.NOT_AN_OBJECT),
        (b"17", Reason.NOT_AN_OBJECT),
        (b'"text"', Reason.NOT_AN_OBJECT),
        (b"[" + event_json() + b"]", Reason.NOT_AN_OBJECT),
        (b"{}", Reason.MISSING_FIELD),
        (event_json(user_id=...), Reason.MISSING_FIELD),
        (event_json(ts=...), Reason.MISSING_FIELD),
        (event_json(type=...), Reason.MISSING_FIELD),
        (event_json(item_id=...), Reason.MISSING_FIELD),
        (event_json(item_id=None), Reason.MISSING_FIELD),
        (event_json(user_id=None), Reason.INVALID_FIELD),
        (event_json(user_id=""), Reason.INVALID_FIELD),
        (event_json(user_id="x" * 257), Reason.INVALID_FIELD),
        (event_json(user_id=42), Reason.INVALID_FIELD),
        (event_json(item_id=""), Reason.INVALID_FIELD),
        (event_json(event_id="x" * 129), Reason.INVALID_FIELD),
        (event_json(event_id=""), Reason.INVALID_FIELD),
        (event_json(ts=True), Reason.INVALID_FIELD),
        (event_json(ts=1.5), Reason.INVALID_FIELD),
        (event_json(ts=float(NOW_MS)), Reason.INVALID_FIELD),
        (event_json(ts=2**63), Reason.INVALID_FIELD),
        (event_json(ts=-(2**63)), Reason.INVALID_FIELD),
        (event_json(ts=10**29), Reason.INVALID_FIELD),
        (event_json(ts=str(NOW_MS)), Reason.INVALID_FIELD),
        (event_json(ts="2026-01-05T10:00:00"), Reason.INVALID_FIELD),  # without an offset
        (event_json(ts="2026-01-05"), Reason.INVALID_FIELD),
        (event_json(ts="yesterday"), Reason.INVALID_FIELD),
        (event_json(ts="2026-01-05T10:00:60Z"), Reason.INVALID_FIELD),
        (event_json(ts="2026-01-05T10:00:00+01:90"), Reason.INVALID_FIELD),
        (event_json(ts="2026-01-05T10:00:00Z\0"), Reason.INVALID_FIELD),
        (event_json(ts="0001-01-01T00:00:00+00:01"), Reason.INVALID_FIELD),
        (event_json(ts=EARLIEST_MS - 1), Reason.INVALID_FIELD),
        (event_json(ts="2026-01-05T10:00:00." + "0" * 64 + "Z"), Reason.INVALID_FIELD),
        (event_json(value=float("nan")), Reason.INVALID_FIELD),
        (event_json(value=float("inf")), Reason.INVALID_FIELD),
        (event_json(value=7).replace(b": 7", b": 1e999"), Reason.INVALID_FIELD),
        (event_json(value=10**400), Reason.INVALID_FIELD),
        (event_json(value="3"), Reason.INVALID_FIELD),
        (event_json(value=True), Reason.INVALID_FIELD),
        (event_json(context={"a": [1]}), Reason.INVALID_FIELD),
        (event_json(context={"a": {"b": 1}}), Reason.INVALID_FIELD),
        (event_json(context={"a": float("inf")}), Reason.INVALID_FIELD),
        (event_json(context=[1]), Reason.INVALID_FIELD),
        (event_json(context={str(n): [n] for n in range(10_000)}), Reason.INVALID_FIELD),
        (event_json(type="forget", user_id=..., item_id=...), Reason.MISSING_FIELD),
        (event_json(type="forget", ts=..., item_id=...), Reason.MISSING_FIELD),
        (event_json(type="teleport"), Reason.UNKNOWN_TYPE),
        (event_json(type="View"), Reason.UNKNOWN_TYPE),
        (event_json(ts=NOW_MS + 24 * HOUR_MS + 1), Reason.TS_IN_FUTURE),
        (event_json(ts="9999-12-31T23:59:59-14:00"), Reason.TS_IN_FUTURE),
        (event_json(ts=NOW_MS * 1000), Reason.TS_IN_FUTURE),  # microseconds
    ],
)
def test_rejected_events(value: bytes | None, reason: Reason) -> None:
    record = event_record(value)
    reject = outcome_of(record)
    assert isinstance(reject, Reject), reject
    assert reject.code == reason
    assert reject.record is record
    assert 0 < len(reject.message) <= 400


def test_the_last_of_duplicate_json_keys_counts() -> None:
    value = b'{"user_id":"a","user_id":"b","item_id":"i","type":"view","ts":1}'
    event = outcome_of(event_record(value))
    assert isinstance(event, Interaction)
    assert event.user_id == "b"


@pytest.mark.parametrize("key", [None, b"", b"someone else", b"\xff"])
def test_an_event_under_another_key_is_taken(key: bytes | None) -> None:
    assert isinstance(outcome_of(event_record(event_json(), key)), Interaction)


def test_only_the_configured_types_are_known() -> None:
    rules = DecodeRules(event_types={"teleport": 1.0})
    assert isinstance(outcome_of(event_record(event_json(type="teleport")), rules), Interaction)
    assert isinstance(outcome_of(event_record(event_json(type="view")), rules), Reject)


@pytest.mark.parametrize(
    ("value", "key", "expected"),
    [
        (item_json(), b"i1", ItemChange("i1", title="Lamp")),
        (item_json(category="home", available=False), b"i1", ItemChange("i1", False, False, "Lamp", "home")),
        (
            item_json(category=None, tags=["a"], price=1, description="d", ts=NOW_MS),
            b"i1",
            ItemChange("i1", title="Lamp"),
        ),
        (item_json(item_id="é"), "é".encode(), ItemChange("é", title="Lamp")),
        (item_json(title="x" * 900_000), b"i1", ItemChange("i1", title="x" * 1000)),
        (None, b"i1", ItemChange("i1", deleted=True)),
        (None, "é".encode(), ItemChange("é", deleted=True)),
        (b"", b"i1", Reason.NOT_JSON),  # empty is not null: nothing is deleted by it
        (b"null", b"i1", Reason.NOT_AN_OBJECT),
        (item_json(title=...), b"i1", Reason.MISSING_FIELD),
        (item_json(item_id=""), b"", Reason.INVALID_FIELD),
        (item_json(available="yes"), b"i1", Reason.INVALID_FIELD),
        (item_json(price=float("nan")), b"i1", Reason.INVALID_FIELD),
        (item_json(tags=[1]), b"i1", Reason.INVALID_FIELD),
        (item_json(), b"i2", Reason.KEY_MISMATCH),
        (item_json(), None, Reason.KEY_MISMATCH),
        (None, None, Reason.INVALID_KEY),
        (None, b"", Reason.INVALID_KEY),
        (None, b"\xff", Reason.INVALID_KEY),
        (None, b"x" * 257, Reason.INVALID_KEY),
    ],
)
def test_catalogue_records(value: bytes | None, key: bytes | None, expected: ItemChange | Reason) -> None:
    outcome = outcome_of(item_record(value, key))
    assert (outcome.code if isinstance(outcome, Reject) else outcome) == expected


def optional_fields(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if not field.is_required()]


@pytest.mark.parametrize("field", optional_fields(Interaction))
def test_null_in_an_optional_field_of_an_event_is_as_if_it_were_not_there(field: str) -> None:
    event = {"type": "search", "item_id": ...}
    without = outcome_of(event_record(event_json(**event)))
    assert isinstance(without, Interaction)
    assert outcome_of(event_record(event_json(**event | {field: None}))) == without


@pytest.mark.parametrize("field", optional_fields(Item))
def test_null_in_an_optional_field_of_an_item_is_as_if_it_were_not_there(field: str) -> None:
    assert outcome_of(item_record(item_json(**{field: None}), b"i1")) == ItemChange("i1", title="Lamp")


BOUNDS: list[tuple[str, Any, Any]] = [  # field, what is just within its bound, what is just beyond
    ("user_id", "x" * 256, "x" * 257),
    ("item_id", "x" * 256, "x" * 257),
    ("event_id", "x" * 128, "x" * 129),
    ("session_id", "x" * 128, "x" * 129),
    ("session_id", "x", ""),
    ("query", "😀" * 1000, "😀" * 1001),
    ("query", "", "x" * 900_000),
    ("context", {str(n): n for n in range(64)}, {str(n): n for n in range(65)}),
    ("context", {"x" * 128: 1}, {"x" * 129: 1}),
    ("context", {"x": 1}, {"": 1}),
    ("context", {"a": "x" * 1000}, {"a": "x" * 1001}),
]
ITEM_BOUNDS: list[tuple[str, Any, Any]] = [
    ("description", "x" * 100_000, "x" * 100_001),
    ("tags", ["x"] * 256, ["x"] * 257),
    ("tags", ["x" * 256], ["x" * 257]),
    ("tags", [], [None]),
]


@pytest.mark.parametrize(("field", "within", "beyond"), BOUNDS)
def test_bounds_of_an_events_fields(field: str, within: Any, beyond: Any) -> None:
    event = outcome_of(event_record(event_json(**{field: within})))
    assert isinstance(event, Interaction), event
    assert getattr(event, field) == within
    assert_refused_by_name(outcome_of(event_record(event_json(**{field: beyond}))), field)


@pytest.mark.parametrize(("field", "within", "beyond"), ITEM_BOUNDS)
def test_bounds_of_an_items_fields(field: str, within: Any, beyond: Any) -> None:
    assert outcome_of(item_record(item_json(**{field: within}), b"i1")) == ItemChange("i1", title="Lamp")
    assert_refused_by_name(outcome_of(item_record(item_json(**{field: beyond}), b"i1")), field)


def assert_refused_by_name(outcome: Outcome, field: str) -> None:
    assert isinstance(outcome, Reject)
    assert outcome.code is Reason.INVALID_FIELD
    assert outcome.message.startswith(field)
    assert ";" not in outcome.message  # one thing is wrong, so one is told


@pytest.mark.parametrize(
    ("beginning", "told"),
    [
        (b"\x00\x00\x00\x00\x2a", "schema registry"),
        (b"\xef\xbb\xbf", "byte order mark"),
        (b"\xff\xfe", "UTF-16"),
        (b"\x1f\x8b", "gzip"),
    ],
)
def test_bytes_that_are_plainly_something_else_are_called_so(beginning: bytes, told: str) -> None:
    for record in (event_record(beginning + event_json()), item_record(beginning + item_json(), b"i1")):
        reject = outcome_of(record)
        assert isinstance(reject, Reject)
        assert reject.code is Reason.NOT_JSON
        assert told in reject.message


@given(st.binary(max_size=300), st.sampled_from(["events", "items"]), st.none() | st.binary(max_size=20))
def test_no_bytes_raise(value: bytes, topic: str, key: bytes | None) -> None:
    outcome_of(Record(topic, 0, 0, -1, key, value))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.sampled_from(list(Interaction.model_fields)), _json))
def test_no_json_raises_and_what_is_accepted_is_bounded(changes: dict[str, Any]) -> None:
    value = json.dumps({"user_id": "u", "item_id": "i", "type": "view", "ts": 1} | changes).encode()
    event = outcome_of(event_record(value))
    if isinstance(event, Interaction):
        assert 1 <= len(event.user_id) <= 256
        event.user_id.encode()
        assert -(2**63) <= event.ts <= NOW_MS + 24 * HOUR_MS
        assert event.value is None or abs(event.value) < float("inf")
        assert 1 <= len(event.session_id or "x") <= 128
        assert len(event.query or "") <= 1000
        assert len(event.context or {}) <= 64


@settings(max_examples=40, deadline=None)
@given(streams())
def test_each_record_has_one_outcome_whatever_its_neighbours(records: list[Record]) -> None:
    together = decode(records, DecodeRules(), NOW_MS)
    assert list(together.outcomes) == [outcome_of(record) for record in records]
    assert len(together.events) + len(together.rejects) <= len(records)
