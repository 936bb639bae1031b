import json

import orjson
from hypothesis import given
from hypothesis import strategies as st

from service.scoring.recommendations import list_json, without
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


@given(ranked_lists, st.data())
def test_without_leaves_out_what_is_blocked_and_nothing_else(
    ranked: list[tuple[str, float]], data: st.DataObject
) -> None:
    blocked = data.draw(st.sets(ids | st.sampled_from([item for item, _ in ranked] or ["x"]), max_size=5))

    def raw(pairs: list[tuple[str, float]]) -> bytes:
        return list_json(
            "é",
            pairs,
            model_version=2**53 + 1,
            trained_through={"events": {"0": 2**63 - 1}},
            events_seen=3,
            generated_at="2026-01-05T10:00:00.123Z",
        )

    kept = [pair for pair in ranked if pair[0] not in blocked]
    result = without(raw(ranked), blocked)
    assert result == without(raw(ranked), frozenset(blocked))
    if kept == ranked:
        assert result is None
    else:
        assert result == raw(kept)
        assert without(result, blocked) is None


def test_a_list_may_lose_everything() -> None:
    raw = list_json("u", [("a", 1.0)], model_version=1, trained_through={}, events_seen=1, generated_at="")
    emptied = without(raw, {"a", "b"})
    assert emptied is not None
    assert orjson.loads(emptied)["items"] == []
    assert without(raw, set()) is None
