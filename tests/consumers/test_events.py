"""The models alone: what a user of them in Python relies on."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from consumers.events import Interaction, Item, iso_to_epoch_ms
from tests.consumers.samples import NOW_MS, ids


@given(user_id=ids, item_id=ids, ts=st.integers(0, NOW_MS), value=st.floats(allow_nan=False, allow_infinity=False))
def test_encoding_then_decoding_gives_the_event_back(user_id: str, item_id: str, ts: int, value: float) -> None:
    event = Interaction(user_id=user_id, item_id=item_id, type="view", ts=ts, value=value)
    assert Interaction.model_validate_json(event.model_dump_json()) == event


@given(item_id=ids, title=st.text(st.characters(exclude_categories=["Cs"])), tags=st.lists(ids))
def test_encoding_then_decoding_gives_the_item_back(item_id: str, title: str, tags: list[str]) -> None:
    item = Item(item_id=item_id, title=title, tags=tags)
    assert Item.model_validate_json(item.model_dump_json()) == item


@given(st.datetimes(timezones=st.timezones()))
def test_iso_times_become_their_epoch_milliseconds(moment: datetime) -> None:
    got = iso_to_epoch_ms(moment.isoformat())
    assert got <= (moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000 + 0.5
    assert abs(got - moment.timestamp() * 1000) < 1.01


@pytest.mark.parametrize("bad", ["\ud800", "a\udfffb"])
def test_ids_that_cannot_be_encoded_are_refused_from_python_too(bad: str) -> None:
    with pytest.raises(ValidationError):
        Interaction(user_id=bad, item_id="i", type="view", ts=0)
    with pytest.raises(ValidationError):
        Item(item_id=bad, title="")
