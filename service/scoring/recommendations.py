"""A list as it is written to Redis: the JSON of the contract."""

from collections.abc import Iterable, Mapping

import orjson


def list_json(
    user_id: str | None,
    ranked: Iterable[tuple[str, float]],
    *,
    model_version: int,
    trained_through: Mapping[str, Mapping[str, int]],
    events_seen: int | None,
    generated_at: str,
) -> bytes:
    """`ranked`: (item_id, score), best first, no item twice, finite scores. `user_id` and `events_seen`: None where the
    list is nobody's, and then they are left out."""
    fields = {
        "user_id": user_id,
        "model_version": model_version,
        "generated_at": generated_at,
        "events_seen": events_seen,
        "trained_through": trained_through,
        "items": [{"item_id": item, "score": score} for item, score in ranked],
    }
    return orjson.dumps({name: value for name, value in fields.items() if value is not None})


def entry_start(item: str) -> bytes:
    """The bytes with which the item's entry begins in a list. They are nowhere else, since quotes in texts are
    escaped."""
    return b'{"item_id":' + orjson.dumps(item) + b","


def items_in(raw: bytes) -> list[str]:
    """The items of a stored list; none where `raw` is not a list."""
    try:
        return [entry["item_id"] for entry in orjson.loads(raw)["items"]]
    except (ValueError, KeyError, TypeError):
        return []
