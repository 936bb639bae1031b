"""What a dead letter says, and how it travels."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from consumers.decode import Reason, Reject
from consumers.letters import DeadLetter, Refused, dead_letter
from consumers.records import Record
from tests.consumers.samples import refusals

OURS = (
    ("error.code", b"not_json"),
    ("error.message", "nö".encode()),
    ("source.topic", b"events"),
    ("source.partition", b"3"),
    ("source.offset", b"42"),
)


def letter(value: bytes | None = b"junk") -> DeadLetter:
    record = Record("events", 3, 42, 0, b"u1", value, (("trace", b"1"), ("null", None)))
    return dead_letter(Reject(record, Reason.NOT_JSON, "nö"))


def test_headers_say_what_was_wrong_and_where_after_the_records_own() -> None:
    made = letter()
    assert (made.address, made.key, made.value) == ("events.dlq", b"u1", b"junk")
    assert made.headers == (("trace", b"1"), ("null", None), *OURS)


def test_a_bare_letter_has_our_headers_alone() -> None:
    assert letter().bare() == DeadLetter("events", None, b"junk", OURS)
    assert letter().cut(1).bare().headers == (*OURS, ("error.value_truncated_from", b"4"))


@given(st.none() | st.binary(max_size=50), st.integers(0, 60), st.integers(0, 60))
def test_a_cut_letter_says_how_long_it_was_however_often_it_is_cut(value: bytes | None, first: int, then: int) -> None:
    whole = letter(value)
    cut = whole.cut(first).cut(then)
    assert cut.value == (None if value is None else value[: min(first, then)])
    note = (("error.value_truncated_from", str(len(value or b"")).encode()),)
    assert cut.headers == whole.headers + (note if cut.value != value else ())


@given(refusals())
def test_what_is_written_is_read_back(refused: Refused) -> None:
    assert Refused.from_json(refused.to_json()) == refused


def test_the_written_form_is_pinned() -> None:
    refused = Refused(DeadLetter("events", b"\xff\x00", None, (("a", b"text"), ("b", None), ("c", b"\xfe")), 1), "why")
    assert orjson.loads(refused.to_json()) == {
        "topic": "events",
        "key": {"hex": "ff00"},
        "value": None,
        "headers": [["a", "text"], ["b", None], ["c", {"hex": "fe"}]],
        "own_headers": 1,
        "error": "why",
    }
