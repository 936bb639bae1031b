"""The models alone: what a user of them in Python relies on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from consumers.events import Interaction, Item
from tests.consumers.samples import NOW_MS, ids


@given(user_id=ids, item_id=ids, ts=st.integers(0, NOW_MS), value=st.floats(allow_nan=False, allow_infinity=False))
def test_encoding_then_decoding_gives_the_event_back(user_id: str, item_id: str, ts: int, value: float) -> None:
    event = Interaction(user_id=user_id, item_id=item_id, type="view", ts=ts, value=value)
    assert Interaction.model_validate_json(event.model_dump_json()) == event


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
