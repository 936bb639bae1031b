"""A dead letter: a rejected record as its dead-letter topic gets it; and a letter that this topic refused."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from consumers.decode import Reject
from consumers.records import Headers

DLQ_SUFFIX = ".dlq"
TRUNCATED_FROM = "error.value_truncated_from"  # header: how many bytes the value had before it was cut


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What goes to `<topic>.dlq`."""

    topic: str  # of the rejected record
    key: bytes | None
    value: bytes | None
    headers: Headers  # those of the record, then ours; of two with the same name the last is ours
    own_headers: int = 0  # how many of them are the record's

    @property
    def address(self) -> str:
        """The dead-letter topic."""
        return self.topic + DLQ_SUFFIX

    def cut(self, size: int) -> "DeadLetter":
        """This letter with at most `size` bytes of its value, and a header that says how many there were."""
        value = self.value or b""
        if len(value) <= size:
            return self
        told = any(name == TRUNCATED_FROM for name, _ in self.headers[self.own_headers :])
        note: Headers = () if told else ((TRUNCATED_FROM, str(len(value)).encode()),)
        return replace(self, value=value[:size], headers=self.headers + note)

    def bare(self) -> "DeadLetter":
        """Without the record's own key and headers: what is wrong, and where the record stands."""
        return replace(self, key=None, headers=self.headers[self.own_headers :], own_headers=0)


def dead_letter(reject: Reject) -> DeadLetter:
    """The record's bytes as they came, and the contract's headers."""
    record = reject.record
    ours: Headers = (
        ("error.code", reject.code.value.encode()),
        ("error.message", reject.message.encode(errors="replace")),
        ("source.topic", record.topic.encode()),
        ("source.partition", str(record.partition).encode()),
        ("source.offset", str(record.offset).encode()),
    )
    return DeadLetter(record.topic, record.key, record.value, record.headers + ours, len(record.headers))


@dataclass(frozen=True, slots=True)
class Refused:
    """A letter that its topic has refused for good, and why, in the broker's words."""

    letter: DeadLetter
    error: str

    def to_json(self) -> bytes:
        """For the pipe, and for Redis, where docs/wire-format.md describes it."""
        letter = self.letter
        fields = {
            "topic": letter.topic,
            "key": _out(letter.key),
            "value": _out(letter.value),
            "headers": [[name, _out(value)] for name, value in letter.headers],
            "own_headers": letter.own_headers,
            "error": self.error,
        }
        return orjson.dumps(fields)

    @classmethod
    def from_json(cls, data: bytes) -> "Refused":
        fields: dict[str, Any] = orjson.loads(data)
        headers = tuple((name, _in(value)) for name, value in fields["headers"])
        letter = DeadLetter(fields["topic"], _in(fields["key"]), _in(fields["value"]), headers, fields["own_headers"])
        return cls(letter, fields["error"])


def _out(data: bytes | None) -> str | Mapping[str, str] | None:
    """Bytes for JSON: as text if they are UTF-8, so that people can read them; else as hex."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"hex": data.hex()}


def _in(value: str | Mapping[str, str] | None) -> bytes | None:
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else bytes.fromhex(value["hex"])
