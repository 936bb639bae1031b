"""A version's manifest.

A version exists once its manifest does. The manifest names everything that the version was made from (the events, by
their offsets, and whatever else an update depended on), so that it can be made again.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    GetCoreSchemaHandler,
    JsonValue,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from model_store.errors import DamagedManifest

FORMAT = 2

Kind = Literal["snapshot", "delta"]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Version = Annotated[int, Field(ge=1, lt=2**53)]  # JSON numbers, and scores of a sorted set, are exact up to 2**53
Checksum = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Timestamp = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")]

Range = tuple[str, Count, Count, Count]
"""Topic, partition, first offset, one past the last offset."""


def timestamp(seconds: float) -> str:
    """Epoch seconds as ISO-8601 in UTC with milliseconds.

    >>> timestamp(0.0015)
    '1970-01-01T00:00:00.001Z'
    """
    whole, ms = divmod(int(seconds * 1000), 1000)
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ms:03d}Z"


class _Record(BaseModel):
    # forbid: an unknown field may be one that must be obeyed; new fields come with a new format number
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class BlobRef(_Record):
    """A blob's key, its size and its SHA-256."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    bytes: Count
    checksum: Checksum


class KafkaIds(_Record):
    """The ids of the cluster and the topics that offsets belong to: in others of the same name they mean nothing."""

    cluster_id: str
    topics: dict[str, str] = Field(default_factory=dict)


class BatchRecord(_Record):
    """One micro-batch as it was learned: the records it held, and what else the update depended on."""

    ranges: tuple[Range, ...]
    records: Count = 0  # how many the ranges held; fewer than offsets if a log was compacted or had transactions
    replay: FiniteFloat | int = 0  # past events learned again for each new one
    skipped: bool = False  # its loss or gradient was not finite: the offsets count, the weights did not change
    ahead: tuple[tuple[str, Count, Count], ...] = ()  # topic, partition, offset: rejected for a `ts` in the future
    weights_of_version: Version | None = None  # after this batch the weights were set back to those of this version
    extra: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("ranges")
    @classmethod
    def _forwards(cls, ranges: tuple[Range, ...]) -> tuple[Range, ...]:
        for topic, partition, start, end in ranges:
            if end < start:
                raise ValueError(f"{topic}[{partition}]: the range {start}..{end} runs backwards")
        return ranges


class Head(_Record):
    """A manifest without its micro-batches, of which there may be many thousand: all that a reader needs.

    Metrics that are not finite are left out.
    """

    format: Literal[2] = 2
    version: Version
    parent: Version | None
    kind: Kind
    created_at: Timestamp
    run_id: str
    kafka: KafkaIds
    trained_through: dict[str, dict[str, Count]]  # topic -> partition -> the offset to read next
    events_trained: Count
    checkpoint: bool = True  # whether it holds the trainer's state too, so that a trainer can continue from it
    config_digest: str
    config: dict[str, JsonValue] = Field(default_factory=dict)  # the configuration that the digest is of, for people
    environment: dict[str, str | int] = Field(default_factory=dict)  # threads, processor and libraries that computed it
    metrics: dict[str, FiniteFloat] = Field(default_factory=dict)
    blobs: dict[str, BlobRef] = Field(default_factory=dict)
    signature: str | None = None  # an HMAC over the canonical JSON without this field: signature.py

    @model_validator(mode="after")
    def _has_a_past(self) -> Self:
        if self.parent is not None and self.parent >= self.version:
            raise ValueError(f"version {self.version} has the parent {self.parent}: parents come before")
        if self.parent is None and self.kind == "delta":
            raise ValueError(f"version {self.version} is a delta without a parent")
        if self.kind == "snapshot" and not self.checkpoint:
            raise ValueError(f"version {self.version} is a snapshot without the trainer's state")
        datetime.fromisoformat(self.created_at)  # the pattern lets the 31st of February pass
        return self

    @property
    def created(self) -> float:
        """`created_at` as epoch seconds."""
        return datetime.fromisoformat(self.created_at).timestamp()

    @property
    def learned(self) -> bool:
        """Whether there are micro-batches; without any, the weights are those of the parent."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, data: bytes) -> "Head":
        """As `Manifest.from_json`; the micro-batches are not checked."""
        return _read(_HeadOfJson, data)

    def summary(self) -> "Summary":
        """The part that retention and the list of versions need."""
        sums = tuple(sorted({ref.checksum for ref in self.blobs.values()}))
        return Summary(self.version, self.parent, self.kind, self.created, sums)


class Manifest(Head):
    """A version's manifest: its blobs, and the micro-batches that it was made from."""

    batches: tuple[BatchRecord, ...] = ()

    @property
    def learned(self) -> bool:
        return bool(self.batches)

    def to_json(self) -> bytes:
        """Canonical JSON: UTF-8, keys sorted, no blanks; without `signature` if there is none."""
        fields = self.model_dump(mode="json", exclude={"signature"} if self.signature is None else None)
        return canonical_json(fields)

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        """Raises: DamagedManifest, naming the first wrong field, or the format if it is another one."""
        return _read(cls, data)


class _AreThereAny:
    """Turns a JSON list into whether it has an element, without making Python objects of its elements."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        empty = core_schema.no_info_after_validator_function(lambda _: False, core_schema.list_schema(max_length=0))
        return core_schema.with_default_schema(empty, default=True, on_error="default")


class _HeadOfJson(Head):
    any_batches: Annotated[bool, _AreThereAny] = Field(default=False, alias="batches")

    @property
    def learned(self) -> bool:
        return self.any_batches


_Form = TypeVar("_Form", bound=Head)


def _read(form: type[_Form], data: bytes) -> _Form:
    try:
        return form.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        if (found := _format_of(data)) not in (None, FORMAT):
            raise DamagedManifest(f"manifest of format {found!r}: this build reads format {FORMAT}") from None
        raise DamagedManifest(f"manifest: {where}: {first['msg']} ({error.error_count()} errors)") from None


@dataclass(frozen=True, slots=True)
class Summary:
    """A version in brief, so that thousands can be read at once."""

    version: int
    parent: int | None
    kind: Kind
    created: float  # epoch seconds
    checksums: tuple[str, ...] = ()  # of the version's blobs, each once

    def to_text(self) -> str:
        """`kind parent created_ms checksum...`; parent is 0 if there is none."""
        return " ".join((self.kind, str(self.parent or 0), str(round(self.created * 1000)), *self.checksums))

    @classmethod
    def from_text(cls, version: int, text: str) -> "Summary":
        """Raises: DamagedManifest."""
        words: Sequence[str] = text.split()
        try:
            kind, parent, created, *sums = words
            if kind not in ("snapshot", "delta"):
                raise ValueError
            return cls(
                version,
                int(parent) or None,
                "snapshot" if kind == "snapshot" else "delta",
                int(created) / 1000,
                tuple(sums),
            )
        except ValueError:
            raise DamagedManifest(f"summary of version {version} cannot be read: {text[:100]!r}", version) from None


def canonical_json(value: object) -> bytes:
    """JSON that is the same in every process, as checksums and signatures need: keys sorted, no blanks."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _format_of(data: bytes) -> object:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return fields.get("format") if isinstance(fields, dict) else None
