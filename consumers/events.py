"""The two kinds of record, `events` and `items`, as strict and bounded pydantic models.

Strict means that nothing is converted: a number in a string, a bool as a number, a float as a time are rejected. Every
string that passes is encodable as UTF-8 (lone surrogates are rejected), every number is finite, and every integer fits
64 bits. Of duplicate JSON keys the last one counts, as in Python, JavaScript and Go. Unknown fields are ignored, so
that producers may add some.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from consumers.times import EARLIEST_MS, LATEST_MS, parse_iso

DEFAULT_EVENT_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "view": 1.0,
        "click": 1.0,
        "add_to_cart": 2.0,
        "purchase": 3.0,
        "like": 2.0,
        "dislike": -1.0,
        "rating": 1.0,
        "search": 0.0,
        "forget": 0.0,
    }
)
"""The known event types and how much each counts; settings may change the weights or add types."""

TYPES_WITHOUT_ITEM = frozenset({"search", "forget"})

# A longer field is not what its name says.
MAX_TEXT_CHARS = 1_000  # of a query, and of a text in a context
MAX_CONTEXT = 64  # fields of a context
MAX_DESCRIPTION_CHARS = 100_000  # a page of text with its markup
MAX_TAGS = 256

FUTURE_TOLERANCE_MS = 86_400_000
"""How far ahead of the reader's clock an event's `ts` may be: a day. Beyond that the sender's clock is wrong."""


class _EpochMs:
    """Integer epoch milliseconds, or ISO-8601 with an offset, which is converted to them.

    pydantic's datetime is not used: it accepts numbers, also in strings, and guesses their unit by their size.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.union_schema(
            [
                core_schema.int_schema(strict=True, ge=EARLIEST_MS, le=LATEST_MS),
                core_schema.no_info_after_validator_function(
                    parse_iso, core_schema.str_schema(strict=True, max_length=64)
                ),
            ],
            mode="left_to_right",
            custom_error_type="epoch_ms",
            custom_error_message="must be integer epoch milliseconds, or ISO-8601 with an offset, from the year 1 on",
        )


class _Scalar:
    """A scalar JSON value. One error message for anything else, where a plain union gives one a member."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.union_schema(
            [
                core_schema.str_schema(strict=True, max_length=MAX_TEXT_CHARS),
                core_schema.bool_schema(strict=True),
                core_schema.int_schema(strict=True, ge=-(2**63), le=2**63 - 1),
                core_schema.float_schema(strict=True, allow_inf_nan=False),
                core_schema.none_schema(),
            ],
            mode="left_to_right",
            custom_error_type="scalar",
            custom_error_message=f"must be text of at most {MAX_TEXT_CHARS:,} characters, a number, a boolean or null",
        )


EpochMs = Annotated[int, _EpochMs]
Id = Annotated[str, Field(min_length=1, max_length=256)]
ShortId = Annotated[str, Field(min_length=1, max_length=128)]
Scalar = Annotated[str | bool | int | float | None, _Scalar]


class Interaction(BaseModel):
    """One record of `events`: what a user did, and when."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore")

    user_id: Id
    type: Annotated[str, Field(min_length=1, max_length=64)]
    ts: EpochMs  # when it happened, epoch milliseconds
    item_id: Id | None = None
    event_id: ShortId | None = None
    value: float | None = None  # rating, quantity, price or dwell seconds
    session_id: ShortId | None = None
    query: Annotated[str, Field(max_length=MAX_TEXT_CHARS)] | None = None  # the text of a search
    context: Annotated[dict[ShortId, Scalar], Field(max_length=MAX_CONTEXT)] | None = None


class Item(BaseModel):
    """One record of `items`: what can be recommended."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore")

    item_id: Id
    title: str
    description: Annotated[str, Field(max_length=MAX_DESCRIPTION_CHARS)] | None = None
    category: str | None = None
    tags: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=MAX_TAGS)] | None = None
    price: float | None = None
    available: bool | None = None  # None means available
    ts: EpochMs | None = None
