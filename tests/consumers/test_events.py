"""The models alone: what a user of them in Python relies on."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from consumers.decode import DecodeRules, decode
from consumers.events import Interaction, Item
from consumers.times import EARLIEST_MS, LATEST_MS
from tests.consumers.samples import event_record, ids

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=1000)
short_ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128)
numbers = st.floats(allow_nan=False, allow_infinity=False)
scalars = texts | st.booleans() | st.integers(-(2**63), 2**63 - 1) | numbers | st.none()


@given(
    user_id=ids,
    item_id=ids,
    ts=st.integers(EARLIEST_MS, LATEST_MS),
    event_id=st.none() | short_ids,
    value=st.none() | numbers,
    session_id=st.none() | short_ids,
    query=st.none() | texts,
    context=st.none() | st.dictionaries(short_ids, scalars, max_size=64),
)
def test_encoding_then_decoding_gives_the_event_back(**fields: Any) -> None:
    event = Interaction(type="view", **fields)
    assert {name: getattr(event, name) for name in fields} == fields
    assert Interaction.model_validate_json(event.model_dump_json()) == event
    (decoded,) = decode([event_record(orjson.dumps(event.model_dump()))], DecodeRules(), LATEST_MS).outcomes
    assert decoded == event


@given(item_id=ids, title=st.text(st.characters(exclude_categories=["Cs"])), tags=st.lists(ids))
def test_encoding_then_decoding_gives_the_item_back(item_id: str, title: str, tags: list[str]) -> None:
    item = Item(item_id=item_id, title=title, tags=tags)
    assert Item.model_validate_json(item.model_dump_json()) == item


@pytest.mark.parametrize("bad", ["\ud800", "a\udfffb"])
def test_ids_that_cannot_be_encoded_are_refused_from_python_too(bad: str) -> None:
    with pytest.raises(ValidationError):
        Interaction(user_id=bad, item_id="i", type="view", ts=0)
    with pytest.raises(ValidationError):
        Item(item_id=bad, title="")
