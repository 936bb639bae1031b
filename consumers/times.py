"""Times: integer epoch milliseconds in the program, ISO 8601 as text."""

import re
import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

EARLIEST_MS = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MILLISECOND
"""The beginning of the year 1, the earliest time accepted, as a number and as text."""

LATEST_MS = 2**63 - 1
"""The latest time that an int64 holds, accepted as a number. Text ends with the year 9999."""

# Python's parser is not strict enough: it accepts any letter for T, an offset of 90 minutes past the hour, and a NUL at
# the end. It understands all that these patterns accept, except `z`.
_DATE = r"[0-9]{4}(?:-[0-9]{2}-[0-9]{2}|[0-9]{4}|-W[0-9]{2}-[1-7]|W[0-9]{2}[1-7])"
_MINUTE = _SECOND = r"[0-5][0-9]"  # no second 60: time since the epoch does not count it
_FRACTION = r"(?:[.,][0-9]+)?"
_TIME = rf"(?:[01][0-9]|2[0-3])(?::{_MINUTE}(?::{_SECOND}{_FRACTION})?|{_MINUTE}(?:{_SECOND}{_FRACTION})?)?"
_OFFSET = rf"(?:[Zz]|[+-](?:[01][0-9]|2[0-3])(?::?{_MINUTE})?)"
_WITH_OFFSET = re.compile(f"{_DATE}[Tt ]{_TIME}{_OFFSET}")  # RFC 3339 allows the blank
_WITHOUT_OFFSET = re.compile(f"{_DATE}(?:[Tt ]{_TIME})?")


def parse_iso(text: str, *, assume_utc: bool = False) -> int:
    """Epoch milliseconds, rounded down, of a date and time in ISO 8601, extended or basic.

    A text without an offset is refused, or with `assume_utc` taken as UTC; a date alone is then its midnight.
    Raises ValueError, also for a time before EARLIEST_MS.

    >>> parse_iso("2026-01-05T10:00:00.1239+02:00")
    1767600000123
    """
    if _WITH_OFFSET.fullmatch(text):
        moment = datetime.fromisoformat(text.upper())
    elif not _WITHOUT_OFFSET.fullmatch(text):
        raise ValueError("not a date and time in ISO 8601")
    elif not assume_utc:
        raise ValueError("the time carries no offset")
    else:
        moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    epoch_ms = (moment - _EPOCH) // _MILLISECOND
    if epoch_ms < EARLIEST_MS:
        raise ValueError("earlier than the year 1")
    return epoch_ms


def iso(epoch_ms: int) -> str:
    """ISO 8601 in UTC with milliseconds. For the years 1 to 9999.

    >>> iso(1767607200123)
    '2026-01-05T10:00:00.123Z'
    """
    moment = _EPOCH + epoch_ms * _MILLISECOND
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now_ms() -> int:
    """The machine's clock, epoch milliseconds."""
    return time.time_ns() // 1_000_000
