"""One reading of times, for events, files and commands."""

import contextlib
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.times import EARLIEST_MS, iso, now_ms, parse_iso

AT = 1_767_600_000_000  # 2026-01-05T08:00:00Z, a Monday

TAKEN = [
    ("2026-01-05T08:00:00Z", AT),
    ("2026-01-05T08:00:00z", AT),
    ("2026-01-05t08:00:00z", AT),
    ("2026-01-05 08:00:00Z", AT),
    ("2026-01-05T08:00Z", AT),
    ("2026-01-05T08Z", AT),
    ("20260105T080000Z", AT),
    ("20260105T0800Z", AT),
    ("2026-W02-1T08:00Z", AT),
    ("2026W021T0800Z", AT),
    ("2026-01-05T10:00:00+02:00", AT),
    ("2026-01-05T10:00:00+0200", AT),
    ("2026-01-05T10:00:00+02", AT),
    ("2026-01-05T13:45:00+05:45", AT),
    ("2026-01-04T22:00:00-10:00", AT),
    ("2026-01-05T08:00:00-00:00", AT),
    ("2026-01-05T07:01:00-00:59", AT),
    ("2026-01-05T08:00:00.1Z", AT + 100),
    ("2026-01-05T08:00:00,123Z", AT + 123),
    ("2026-01-05T08:00:00.1239999Z", AT + 123),
    ("2026-01-05T08:00:00.000999999999Z", AT),
    ("1970-01-01T00:00:00Z", 0),
    ("1969-12-31T23:59:59.9999Z", -1),
    ("2024-02-29T00:00:00Z", 1_709_164_800_000),
    ("0001-01-01T00:00:00Z", EARLIEST_MS),
    ("0001-01-01T14:00:00+14:00", EARLIEST_MS),
    ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
    ("9999-12-31T23:59:59.999-23:59", 253_402_300_799_999 + (24 * 60 - 1) * 60_000),
]

REFUSED = [
    "",
    "now",
    "1767600000000",
    "2026-01-05",
    "2026-01-05T08:00:00",  # no offset
    "2026-01-05T08:00:00 Z",
    " 2026-01-05T08:00:00Z",
    "2026-01-05T08:00:00Z\n",
    "2026-01-05T08:00:00Z\0",
    "2026-01-05T08:00:00Z+02:00",
    "2026-01-05x08:00:00Z",
    "2026-01-05T08:00:00+01:90",
    "2026-01-05T08:00:00+01:60",
    "2026-01-05T08:00:00+24:00",
    "2026-01-05T08:00:00+1:00",
    "2026-01-05T08:00:00+02:00:30",
    "2026-01-05T08:00:00 02:00",  # a plus sign that a URL has eaten
    "2026-01-05T08:00:00+",
    "2026-01-05T24:00:00Z",
    "2026-01-05T08:60:00Z",
    "2026-01-05T08:00:60Z",
    "2026-01-05T08:00:00.Z",
    "2026-01-05T08:00.5Z",
    "2026-01-05T0800:00Z",
    "2026-0105T08:00:00Z",
    "2026-1-5T08:00:00Z",
    "26-01-05T08:00:00Z",
    "+002026-01-05T08:00:00Z",
    "2026-02-29T08:00:00Z",
    "2026-13-01T08:00:00Z",
    "2026-00-01T08:00:00Z",
    "2026-W54-1T08:00:00Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+00:01",  # a minute before the year 1
    "２０２６-01-05T08:00:00Z",  # noqa: RUF001 - digits that are none in ASCII
    "2026-01-05T08:00:00−02:00",  # noqa: RUF001 - a minus sign that is none in ASCII
]


@pytest.mark.parametrize(("text", "expected"), TAKEN)
def test_these_are_times(text: str, expected: int) -> None:
    assert parse_iso(text) == expected


@pytest.mark.parametrize("text", REFUSED)
def test_these_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_iso(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-05T08:00:00", AT),
        ("2026-01-05 08:00", AT),
        ("2026-01-05", AT - 8 * 3_600_000),
        ("20260105", AT - 8 * 3_600_000),
        ("2026-01-05T10:00:00+02:00", AT),
        ("2026-01-05T08:00:00z", AT),
    ],
)
def test_where_utc_may_be_assumed_the_offset_may_be_missing(text: str, expected: int) -> None:
    assert parse_iso(text, assume_utc=True) == expected


offsets = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=offsets))
def test_whatever_python_writes_is_read_to_the_millisecond(moment: datetime) -> None:
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    assert parse_iso(moment.isoformat()) == since // timedelta(milliseconds=1)


@given(st.integers(EARLIEST_MS, 253_402_300_799_999))
def test_what_is_written_is_read_back(epoch_ms: int) -> None:
    text = iso(epoch_ms)
    assert len(text) == len("2026-01-05T10:00:00.123Z")
    assert parse_iso(text) == epoch_ms


@given(st.text(max_size=40))
def test_no_text_raises_anything_else(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_iso(text, assume_utc=True) >= EARLIEST_MS


def test_now_is_now() -> None:
    before = time.time()
    assert before * 1000 - 1 <= now_ms() <= time.time() * 1000 + 1
