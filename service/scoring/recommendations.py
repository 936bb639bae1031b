"""A list as it is written to Redis: the JSON of the contract."""

from collections.abc import Iterable, Mapping

import orjson


def list_json(
    user_id: str,
    ranked: Iterable[tuple[str, float]],
    *,
    model_version: int,
    trained_through: Mapping[str, Mapping[str, int]],
    events_seen: int,
    generated_at: str,
) -> bytes:
    """`ranked`: (item_id, score), best first, no item twice, finite scores."""
    return orjson.dumps(
        {
            "user_id": user_id,
            "model_version": model_version,
            "generated_at": generated_at,
            "events_seen": events_seen,
            "trained_through": trained_through,
            "items": [{"item_id": item, "score": score} for item, score in ranked],
        }
    )


def without(raw: bytes, blocked: frozenset[str] | set[str]) -> bytes | None:
    """The same list without the blocked items; None when it holds none of them."""
    body = orjson.loads(raw)
    kept = [item for item in body["items"] if item["item_id"] not in blocked]
    if len(kept) == len(body["items"]):
        return None
    body["items"] = kept
    return orjson.dumps(body)
