"""Records to test with, and hypothesis strategies for streams of them."""

import json
from typing import Any

from hypothesis import strategies as st

from consumers.letters import DeadLetter, Refused
from consumers.records import Record

NOW_MS = 1_767_600_000_000  # 2026-01-05T08:00:00Z

GOOD = {"user_id": "u1", "item_id": "i1", "type": "view", "ts": NOW_MS}


def event_json(**changes: Any) -> bytes:
    """A good event but for `changes`; a change to `...` leaves the field out."""
    return json.dumps({k: v for k, v in {**GOOD, **changes}.items() if v is not ...}).encode()


def item_json(**changes: Any) -> bytes:
    return json.dumps({k: v for k, v in {"item_id": "i1", "title": "Lamp", **changes}.items() if v is not ...}).encode()


def event_record(value: bytes | None, key: bytes | None = b"u1", partition: int = 0, offset: int = 0) -> Record:
    return Record("events", partition, offset, NOW_MS, key, value)


def item_record(value: bytes | None, key: bytes | None = b"i1", partition: int = 0, offset: int = 0) -> Record:
    return Record("items", partition, offset, NOW_MS, key, value)


ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256)
few_ids = st.sampled_from(["u1", "u2", "é", "😀", "a\x00b", "x" * 256])


@st.composite
def streams(draw: st.DrawFn) -> list[Record]:
    """Up to 60 records of three partitions, offsets rising with gaps, good and bad and about the catalogue."""
    offsets: dict[tuple[str, int], int] = {}
    records = []
    for _ in range(draw(st.integers(0, 60))):
        place = draw(st.sampled_from([("events", 0), ("events", 1), ("items", 0)]))
        offset = offsets.get(place, 0) + draw(st.sampled_from([0, 0, 0, 1, 5]))
        offsets[place] = offset + 1
        if place[0] == "items":
            item_id = draw(few_ids)
            value = draw(st.sampled_from([None, b"junk", item_json(item_id=item_id)]))
            records.append(item_record(value, item_id.encode(), place[1], offset))
            continue
        user_id = draw(few_ids)
        value = draw(
            st.one_of(
                st.sampled_from([None, b"junk", event_json(type="unknown")]),
                st.just(event_json(user_id=user_id, type="search", item_id=...)),
                st.builds(
                    event_json,
                    user_id=st.just(user_id),
                    item_id=few_ids,
                    type=st.sampled_from(["view", "purchase"]),
                    ts=st.integers(0, NOW_MS),
                    event_id=st.one_of(st.none(), st.sampled_from(["e1", "é", "e-1-2"])),
                    value=st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
                ),
            )
        )
        records.append(event_record(value, draw(st.sampled_from([user_id.encode(), b"other", None])), place[1], offset))
    return records


@st.composite
def refusals(draw: st.DrawFn) -> Refused:
    """Letters of any bytes, that their topic refuses."""
    data = st.none() | st.binary(max_size=20) | st.text(st.characters(exclude_categories=["Cs"])).map(str.encode)
    headers = tuple(draw(st.lists(st.tuples(ids, data), max_size=4)))
    own = draw(st.integers(0, len(headers)))
    return Refused(DeadLetter(draw(ids), draw(data), draw(data), headers, own), draw(ids))
