"""What a command line may give, as argparse takes it: each raises ArgumentTypeError with what would do."""

import argparse

from consumers.times import parse_iso


def utf8(text: str) -> str:
    """Text as it can be sent on. What is not UTF-8 in an argument comes as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8") from None
    return text


def count(text: str) -> int:
    """A whole number from 1 on."""
    return _whole(text, 1)


def count_or_none(text: str) -> int:
    """A whole number from 0 on."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
    return number


def moment(text: str) -> int:
    """Epoch milliseconds of a time in ISO 8601; in UTC where it has no offset."""
    try:
        return parse_iso(text, assume_utc=True)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time in ISO 8601, such as 2026-01-05T10:00:00Z") from None
