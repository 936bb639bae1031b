import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.recommendations import entry_start, items_in, list_json
from tests.consumers.samples import ids

scores = st.floats(allow_nan=False, allow_infinity=False)
ranked_lists = st.dictionaries(ids, scores, max_size=8).map(lambda d: sorted(d.items(), key=lambda pair: -pair[1]))
offsets = st.dictionaries(
    st.sampled_from(["events", "items", "é"]),
    st.dictionaries(st.integers(0, 99).map(str), st.integers(0, 2**63 - 1), max_size=3),
    max_size=3,
)


def test_the_list_of_the_contract_to_the_letter() -> None:
    assert list_json(
        "u42",
        [("i7", 3.21), ("i3", 2.98)],
        model_version=118,
        trained_through={"events": {"0": 9917, "1": 10021}},
        events_seen=17,
        generated_at="2026-01-05T10:00:00.123Z",
    ) == (
        b'{"user_id":"u42","model_version":118,"generated_at":"2026-01-05T10:00:00.123Z","events_seen":17,'
        b'"trained_through":{"events":{"0":9917,"1":10021}},'
        b'"items":[{"item_id":"i7","score":3.21},{"item_id":"i3","score":2.98}]}'
    )


@given(ids, ranked_lists, st.integers(1, 2**63 - 1), offsets, st.integers(0, 2**63 - 1))
def test_every_list_has_the_shape_of_the_contract(
    user: str, ranked: list[tuple[str, float]], version: int, through: dict[str, dict[str, int]], seen: int
) -> None:
    raw = list_json(
        user,
        iter(ranked),
        model_version=version,
        trained_through=through,
        events_seen=seen,
        generated_at="2026-01-05T10:00:00.123Z",
    )
    body = json.loads(raw)
    assert list(body) == ["user_id", "model_version", "generated_at", "events_seen", "trained_through", "items"]
    assert body["user_id"] == user
    assert body["model_version"] == version
    assert body["events_seen"] == seen
    assert body["trained_through"] == through
    assert all(list(item) == ["item_id", "score"] for item in body["items"])
    assert [(item["item_id"], item["score"]) for item in body["items"]] == ranked


def test_whole_scores_are_still_floats() -> None:
    raw = list_json("u", [("i", 3.0)], model_version=1, trained_through={}, events_seen=0, generated_at="")
    assert b'"score":3.0}' in raw


@given(ids, ranked_lists)
def test_an_entry_begins_as_it_is_said_and_nothing_else_does(user: str, ranked: list[tuple[str, float]]) -> None:
    raw = list_json(user, ranked, model_version=1, trained_through={}, events_seen=0, generated_at="")
    for item, _ in ranked:
        assert raw.count(entry_start(item)) == 1
    assert raw.count(b'{"item_id":') == len(ranked)
    assert items_in(raw) == [item for item, _ in ranked]


@given(ids)
def test_no_text_in_a_list_looks_like_an_entry(item: str) -> None:
    hostile = '{"item_id":"x",' + item + ',{"item_id":'
    raw = list_json(hostile, [(hostile, 1.0)], model_version=1, trained_through={}, events_seen=0, generated_at="")
    assert raw.count(b'{"item_id":') == 1


@pytest.mark.parametrize("raw", [b"", b"junk", b"[]", b"{}", b'{"items":1}', b'{"items":[1]}', b'{"items":[{}]}'])
def test_what_is_no_list_has_no_items(raw: bytes) -> None:
    assert items_in(raw) == []
