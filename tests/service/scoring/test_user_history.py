import json
from array import array
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.batcher import id_digest
from consumers.events import DEFAULT_EVENT_WEIGHTS, Interaction
from consumers.records import TopicPartition
from service.model.history import LATEST, NO_KEY, HistoryRule, key_of
from service.scoring.user_history import (
    REMEMBERED_ITEMS,
    STAMP_BYTES,
    STAMP_START,
    DamagedHistory,
    UserHistory,
    decode_history,
)
from service.settings import ScorerSettings
from tests.consumers.samples import NOW_MS, ids

HERE = TopicPartition("events", 0)
THERE = TopicPartition("events", 1)
STAMP = b"0123456789abcdef"
GOLDEN = Path(__file__).parents[2] / "golden"
HIDE = get_args(ScorerSettings.model_fields["hide_seen"].annotation)

counts = st.integers(0, 2**63 - 1)
places = st.builds(TopicPartition, ids, st.integers(0, 2**31 - 1))
histories = st.builds(
    UserHistory,
    items=st.lists(ids, max_size=5),
    events_seen=counts,
    next_offsets=st.dictionaries(places, counts, max_size=4),
    event_keys=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=LATEST).map(lambda keys: array("q", keys)),
    hidden=st.lists(ids, max_size=5),
    disliked=st.lists(ids, max_size=5),
    last_event_ms=counts,
    log=ids,
)
stamps = st.binary(min_size=8, max_size=8).map(lambda b: b.hex().encode())
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def event(item_id: str | None = "i1", type: str = "view", event_id: str | None = None) -> Interaction:
    return Interaction(user_id="u1", item_id=item_id, type=type, ts=NOW_MS, event_id=event_id)


def take(
    history: UserHistory,
    what: Interaction,
    offset: int | None = None,
    *,
    where: TopicPartition = HERE,
    kafka_ms: int = NOW_MS,
    weight: float = 1.0,
    length: int = 20,
    hide: str = "none",
) -> bool:
    offset = history.next_offsets.get(where, 0) if offset is None else offset
    return history.take(what, where, offset, kafka_ms, rule=HistoryRule(length, {what.type: weight}), hide=hide)


def stored(**changes: Any) -> bytes:
    """A good stored history but for `changes`; a change to `...` leaves the field out."""
    fields: dict[str, Any] = {
        "stamp": STAMP.decode(),
        "items": ["i1"],
        "events_seen": 1,
        "next_offsets": {"events": {"0": 3}},
        "event_keys": id_digest("e1").hex() + ",,",
        "hidden": [],
        "last_event_ms": 5,
    } | changes
    body = {name: value for name, value in fields.items() if value is not ...}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


# --- the stored form


@given(histories, stamps)
def test_what_was_encoded_is_decoded(history: UserHistory, stamp: bytes) -> None:
    raw = history.encode(stamp)
    assert decode_history(raw) == (stamp, history)
    assert raw[STAMP_START : STAMP_START + STAMP_BYTES] == stamp
    assert json.loads(raw)["stamp"] == stamp.decode()


@pytest.mark.parametrize("name", ["é", "😀", "a\x00b", '"},{', "\u2028", "\ufeff", "日本", "x" * 256])
def test_ids_of_every_script_survive(name: str) -> None:
    history = UserHistory()
    assert take(history, event(name, event_id=name[:128]), hide="all")
    assert decode_history(history.encode(STAMP))[1] == history
    assert history.items == history.hidden == [name]


def test_the_stored_form_is_json_for_people() -> None:
    history = UserHistory()
    take(history, event("i1", "purchase", "e1"), 41, hide="bought")
    take(history, event("i2"), 7, where=THERE, kafka_ms=NOW_MS + 5)
    assert json.loads(history.encode(STAMP)) == {
        "stamp": STAMP.decode(),
        "items": ["i1", "i2"],
        "events_seen": 2,
        "next_offsets": {"events": {"0": 42, "1": 8}},
        "event_keys": id_digest("e1").hex() + ",,",
        "event_ids": [],
        "hidden": ["i1"],
        "disliked": [],
        "last_event_ms": NOW_MS + 5,
        "last_item_ms": 1767600000000,
        "log": "",
    }


@pytest.mark.parametrize(
    ("form", "keys", "disliked"),
    [
        (0, ["e-1", "é-2"], []),  # kept event ids, and no dislikes
        (1, ["e-1", None, None, "é-2"], ["i9"]),  # without the time of the latest item
        (2, ["e-1", None, None, "é-2"], ["i9"]),
    ],
)
def test_every_form_ever_stored_is_read(form: int, keys: list[str | None], disliked: list[str]) -> None:
    raw = (GOLDEN / f"history-{form}.json").read_bytes()
    stamp, history = decode_history(raw)
    assert stamp == STAMP
    assert history == UserHistory(
        items=["i7", "é", "i3"],
        events_seen=5,
        next_offsets={HERE: 42, TopicPartition("events", 3): 9918},
        event_keys=array("q", [NO_KEY if key is None else key_of(id_digest(key)) for key in keys]),
        hidden=["i3"],
        disliked=disliked,
        last_event_ms=1_767_607_200_123,
        last_item_ms=1_767_607_200_000 if form == 2 else None,
        log="cluster/topic",
    )
    written = history.encode(STAMP)
    assert decode_history(written)[1] == history
    assert (written == raw) == (form == 2)  # today's
    assert not take(history, event(event_id="e-1"), 100)


def test_offsets_of_another_log_are_dropped_and_the_rest_stays() -> None:
    history = UserHistory()
    history.go_on_in("first")
    take(history, event("i1"), 41)
    history.go_on_in("")  # whoever does not know which log it is
    history.go_on_in("first")
    assert history.has_read(HERE, 41)
    history = decode_history(history.encode(STAMP))[1]
    history.go_on_in("second")
    assert not history.has_read(HERE, 0)
    assert (history.items, history.events_seen, history.log) == (["i1"], 1, "second")


def test_a_history_covers_another_that_has_read_no_further_anywhere() -> None:
    def read(*offsets: int) -> UserHistory:
        return UserHistory(next_offsets=dict(zip((HERE, THERE), offsets, strict=False)))

    assert read().covers(read())
    assert read(3).covers(read())
    assert read(3).covers(read(0, 0))
    assert read(3).covers(read(3))
    assert read(3, 1).covers(read(2, 1))
    assert not read(3).covers(read(4))
    assert not read(3, 1).covers(read(2, 2))
    assert not read().covers(read(0, 1))


@pytest.mark.parametrize("log", [None, 3, ["x"]])
def test_the_name_of_a_log_is_text_and_may_be_missing(log: object) -> None:
    assert decode_history(stored())[1].log == ""
    assert decode_history(stored(log="x"))[1].log == "x"
    with pytest.raises(DamagedHistory):
        decode_history(stored(log=log))


def test_a_field_of_a_later_version_is_overlooked() -> None:
    assert decode_history(stored(mood="good")) == decode_history(stored())


NESTED = "[" * 1000 + "]" * 1000


ODD: dict[str, list[Any]] = {
    "items": [None, "abc", 1, {"a": 1}, [None], [1], [["a"]], ["\ud800"]],
    "event_keys": [None, "abc", "0" * 16, "0" * 15 + ",", "0" * 17 + ",", "x" * 16 + ",", " ,", 7, ["0" * 16]],
    "hidden": [None, "abc", [True], [{}]],
    "disliked": [None, "abc", [7]],
    "events_seen": [None, True, "7", -1, 1.5, 1e300, 2**63, 10**400, [1], {}],
    "last_event_ms": [None, "5", -1, 5.0, float("nan"), float("inf")],
    "next_offsets": [
        *(None, [], "events", 3, {"events": 3}, {"events": None}),
        *({"events": {name: 3}} for name in ("", "x", "-1", " 1", "1_0", "٣", "²", "9" * 5000)),
        *({"events": {"0": offset}} for offset in (None, "3", -1, 2.0, 2**64)),
    ],
    "stamp": [None, "0123", STAMP.decode() + "0", "é" * 8, "0123456789abcdeg"],
}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b"1",
        b'"x"',
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        NESTED.encode(),
        b'{"a":' * 100_000,
        b'{"stamp":"0123456789abcdef"',
        b'{"stamp":"0123456789abcdef"}',
        b'{"stamp":"0123456789abcdef","items":' + b"[" * 100_000,
        b" " + stored(),
        stored() + b"x",
        stored()[:-1],
        stored().replace(b'"stamp":', b'"stamp": '),
        *(stored(**{name: ...}) for name in ODD if name != "disliked"),
        *(stored(event_keys=..., event_ids=ids) for ids in (None, "abc", {"a": 1}, [2.5])),
        *(stored(**{name: value}) for name, values in ODD.items() for value in values),
        stored().replace(b'["i1"]', NESTED[2:-2].encode()),
        stored().replace(b'["i1"]', b"[" + NESTED[4:-4].encode() + b"]"),
        stored().replace(b'"events_seen":1', b'"events_seen":1e999'),
    ],
    ids=lambda raw: ascii(raw[:80]),
)
def test_other_bytes_are_a_damaged_history(raw: bytes) -> None:
    with pytest.raises(DamagedHistory, match="not a history"):
        decode_history(raw)


def decoded_or_damaged(raw: bytes) -> None:
    """Whatever is not refused can be stored again, and means the same."""
    try:
        stamp, history = decode_history(raw)
    except DamagedHistory:
        return
    assert decode_history(history.encode(stamp)) == (stamp, history)
    take(history, event(event_id="new"), 5)
    history.encode(stamp)


@given(st.binary())
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    decoded_or_damaged(raw)
    decoded_or_damaged(b'{"stamp":"' + STAMP + b'"' + raw)


@given(histories, stamps, st.data())
def test_no_damage_raises_anything_else(history: UserHistory, stamp: bytes, data: st.DataObject) -> None:
    raw = bytearray(history.encode(stamp))
    start = data.draw(st.integers(0, len(raw)))
    raw[start : start + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    decoded_or_damaged(bytes(raw))


FIELDS = ["stamp", "items", "events_seen", "next_offsets", "event_keys", "hidden", "disliked", "last_event_ms"]


@given(st.sampled_from(FIELDS), json_values)
def test_no_json_raises_anything_else(name: str, value: Any) -> None:
    decoded_or_damaged(stored(**{name: value}))
    decoded_or_damaged(json.dumps(value).encode())


# --- taking events in


def test_offsets_say_what_has_been_read() -> None:
    history = UserHistory()
    assert not history.has_read(HERE, 0)
    take(history, event(), 5)
    assert history.has_read(HERE, 0)
    assert history.has_read(HERE, 5)
    assert not history.has_read(HERE, 6)
    assert not history.has_read(THERE, 5)
    assert not history.has_read(TopicPartition("others", 0), 5)


def test_only_the_latest_items_are_kept() -> None:
    history = UserHistory()
    for n in range(10):
        take(history, event(f"i{n}"), length=3)
    assert history.items == ["i7", "i8", "i9"]
    assert history.events_seen == 10
    take(history, event("i9"), length=3)
    assert history.items == ["i8", "i9", "i9"]


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_events_without_weight_count_and_are_not_in_the_history(weight: float) -> None:
    history = UserHistory()
    assert take(history, event("i1", "dislike"), weight=weight)
    assert take(history, event(None, "search"), weight=weight)
    assert history.items == []
    assert history.events_seen == 2
    assert history.last_event_ms == NOW_MS


def test_an_event_without_an_item_counts_whatever_its_weight() -> None:
    history = UserHistory()
    assert take(history, event(None, "search"), hide="all")
    assert (history.items, history.hidden, history.events_seen) == ([], [], 1)


def test_a_redelivery_changes_nothing_but_the_offset() -> None:
    history = UserHistory()
    assert take(history, event("i1", event_id="e1"), 3, hide="all")
    before = decode_history(history.encode(STAMP))[1]
    assert not take(history, event("i2", "purchase", "e1"), 9, kafka_ms=NOW_MS + 1, hide="all")
    assert history.next_offsets == {HERE: 10}
    before.next_offsets = history.next_offsets
    assert history == before


def test_a_redelivery_by_way_of_another_partition_is_recognised() -> None:
    history = UserHistory()
    assert take(history, event(event_id="e1"), 3)
    assert not take(history, event(event_id="e1"), 0, where=THERE)
    assert history.next_offsets == {HERE: 4, THERE: 1}


def test_redeliveries_are_recognised_within_the_latest_events() -> None:
    assert LATEST >= 50
    history = UserHistory()
    for n in range(200):
        assert take(history, event(event_id=f"e{n}"))
    history = decode_history(history.encode(STAMP))[1]
    for n in range(200 - LATEST, 200):
        assert not take(history, event(event_id=f"e{n}"))
    assert history.events_seen == 200
    assert len(history.event_keys) == LATEST
    assert take(history, event(event_id="e0"))  # long gone


def test_events_without_an_id_are_all_different_and_count_among_the_latest() -> None:
    history = UserHistory()
    assert take(history, event(event_id="e1"))
    assert all(take(history, event()) for _ in range(LATEST - 1))
    assert not take(history, event(event_id="e1"))
    assert take(history, event())
    assert take(history, event(event_id="e1"))
    assert history.events_seen == LATEST + 2


def test_the_latest_event_is_by_kafkas_clock_and_never_goes_back() -> None:
    history = UserHistory()
    for ms in (-1, 100, 50):
        take(history, event(), kafka_ms=ms)
    assert history.last_event_ms == 100
    history = UserHistory()
    take(history, event(), kafka_ms=-1)  # the broker gave none
    assert decode_history(history.encode(STAMP))[1] == history


@pytest.mark.parametrize(("hide", "hidden"), [("none", []), ("bought", ["c", "b"]), ("all", ["d", "c", "a", "b"])])
def test_hidden_items_are_those_the_setting_names(hide: str, hidden: list[str]) -> None:
    history = UserHistory()
    for item, kind, weight in [
        ("a", "view", 1),
        ("b", "purchase", 3),
        ("d", "dislike", 0),
        ("c", "purchase", 0),
        ("a", "click", 1),
        ("b", "purchase", 3),
    ]:
        take(history, event(item, kind), weight=weight, hide=hide)
    assert history.hidden == hidden


def test_a_dislike_is_remembered_until_its_item_is_wanted_again() -> None:
    history = UserHistory()
    steps = [
        ("a", "dislike", -1.0, ["a"]),
        ("b", "dislike", -0.5, ["a", "b"]),
        ("a", "dislike", -1.0, ["b", "a"]),
        ("b", "search", 0.0, ["b", "a"]),
        ("c", "view", 1.0, ["b", "a"]),
        ("b", "view", 1.0, ["a"]),
        ("a", "purchase", 3.0, []),
    ]
    for item, kind, weight, disliked in steps:
        take(history, event(item, kind), weight=weight, hide="bought")
        history = decode_history(history.encode(STAMP))[1]
        assert history.disliked == disliked
    assert (history.items, history.events_seen) == (["c", "b", "a"], 7)
    take(history, event("d", "dislike"), weight=-1.0, hide="bought")
    assert (history.left_out("none"), history.left_out("bought")) == (["d"], ["d", "a"])


def test_a_low_rating_is_a_dislike_where_there_is_a_scale() -> None:
    for scale, disliked in ((None, []), ((1.0, 5.0), ["bad"])):
        history, rule = UserHistory(), HistoryRule(20, DEFAULT_EVENT_WEIGHTS, scale)
        for offset, (item, value) in enumerate([("bad", 2.0), ("good", 4.0), ("bare", None)]):
            rating = Interaction(user_id="u1", item_id=item, type="rating", ts=NOW_MS, value=value)
            assert history.take(rating, HERE, offset, NOW_MS, rule=rule, hide="none")
        assert history.disliked == disliked
        assert history.items == [item for item in ("bad", "good", "bare") if item not in disliked]


def test_disliked_items_are_many_and_not_endless() -> None:
    history = UserHistory()
    for n in range(REMEMBERED_ITEMS + 5):
        take(history, event(f"i{n}", "dislike"), weight=-1.0)
    assert len(history.disliked) == REMEMBERED_ITEMS
    assert history.disliked[-1] == f"i{REMEMBERED_ITEMS + 4}"


def test_hidden_items_are_many_and_not_endless() -> None:
    history = UserHistory()
    for n in range(REMEMBERED_ITEMS + 5):
        take(history, event(f"i{n}"), length=2, hide="all")
    assert len(history.hidden) == REMEMBERED_ITEMS
    assert history.hidden[-1] == f"i{REMEMBERED_ITEMS + 4}"
    assert len(history.items) == 2


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "i1", "i2", "é"]),
            st.sampled_from(["view", "purchase", "search"]),
            st.sampled_from([None, "e1", "e2", "e3"]),
            st.sampled_from([HERE, THERE]),
            st.sampled_from([0.0, 1.0]),
        )
    ),
    st.integers(1, 4),
    st.sampled_from(HIDE),
    st.data(),
)
def test_events_read_again_after_a_death_count_once(
    events: list[tuple[str | None, str, str | None, TopicPartition, float]], length: int, hide: str, data: st.DataObject
) -> None:
    """A scorer saves at any time and dies; the next one starts from what was saved and reads from anywhere before."""

    def read(history: UserHistory, start: int, end: int) -> None:
        for offset, (item, kind, event_id, where, weight) in enumerate(events):
            if start <= offset < end and not history.has_read(where, offset):
                what = event(item, kind, event_id)
                take(history, what, offset, where=where, weight=weight, length=length, hide=hide)

    straight = UserHistory()
    read(straight, 0, len(events))
    sent: set[str] = {event_id for _, _, event_id, _, _ in events if event_id is not None}
    assert straight.events_seen == sum(event_id is None for _, _, event_id, _, _ in events) + len(sent)
    assert len(straight.items) <= length

    saved = data.draw(st.integers(0, len(events)))
    broken = UserHistory()
    read(broken, 0, saved)
    restored = decode_history(broken.encode(STAMP))[1]
    read(restored, data.draw(st.integers(0, saved)), len(events))
    assert restored == straight
