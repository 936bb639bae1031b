"""Manifests: what is in them, and what is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model_store.errors import DamagedManifest
from model_store.version import BatchRecord, Head, Manifest, Summary, timestamp
from tests.model_store.worlds import manifest

GOOD = json.loads(manifest(7, 6).to_json())


def test_there_and_back() -> None:
    made = manifest(7, 6)
    assert Manifest.from_json(made.to_json()) == made
    # whatever the order and the blanks
    loose = json.dumps(dict(reversed(list(GOOD.items()))), indent=2, ensure_ascii=True).encode()
    assert Manifest.from_json(loose) == made
    assert Manifest.from_json(loose).to_json() == made.to_json()


def test_it_is_canonical_and_without_an_empty_signature() -> None:
    text = manifest(7, 6).to_json().decode()
    assert list(GOOD) == sorted(GOOD)
    assert ": " not in text
    assert "signature" not in GOOD
    assert json.loads(manifest(7, 6).model_copy(update={"signature": "abc"}).to_json())["signature"] == "abc"


def test_it_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        manifest(7, 6).version = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": 3}, "manifest of format 3: this build reads format 2"),
        ({"format": "2"}, "manifest of format '2': this build reads format 2"),
        ({"version": "7"}, "version: Input should be a valid integer"),
        ({"version": 7.0}, "version"),
        ({"version": True}, "version"),
        ({"version": 0}, "version"),
        ({"version": 2**53}, "version"),
        ({"version": 10**400}, "version"),
        ({"parent": 7}, "parents come before"),
        ({"parent": None}, "a delta without a parent"),
        ({"kind": "patch"}, "kind"),
        ({"created_at": "2026-01-05 10:00"}, "created_at"),
        ({"created_at": "2026-02-31T10:00:00.000Z"}, "the whole"),
        ({"created_at": 5}, "created_at"),
        ({"kafka": {}}, "kafka.cluster_id: Field required"),
        ({"trained_through": {"events": {"0": -1}}}, "trained_through.events.0"),
        ({"trained_through": {"events": {"0": 2**63}}}, "trained_through.events.0"),
        ({"trained_through": {"events": {"0": 1.5}}}, "trained_through.events.0"),
        ({"trained_through": [1]}, "trained_through"),
        ({"events_trained": -1}, "events_trained"),
        ({"batches": [{"ranges": [["events", 0, 5, 4]]}]}, "runs backwards"),
        ({"batches": [{"ranges": [["events", 0, 5]]}]}, "batches.0.ranges.0"),
        ({"batches": [{"ranges": [], "learning": 1}]}, "batches.0.learning: Extra inputs"),
        ({"metrics": {"loss": "low"}}, "metrics.loss"),
        ({"blobs": {"weights/0": {"key": "k", "bytes": 1, "checksum": "xyz"}}}, "blobs.weights/0.checksum"),
        ({"blobs": {"weights/0": {"key": "k", "bytes": -1, "checksum": "a" * 64}}}, "blobs.weights/0.bytes"),
        ({"blobs": {"weights/0": {"key": "", "bytes": 1, "checksum": "a" * 64}}}, "blobs.weights/0.key"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
    ],
)
def test_what_is_refused(change: dict[str, object], why: str) -> None:
    with pytest.raises(DamagedManifest, match=why):
        Manifest.from_json(json.dumps(GOOD | change).encode())


@pytest.mark.parametrize(
    ("batches", "learned"),
    [([], False), ([{"ranges": [["events", 0, 5, 6]]}] * 3, True), ([{"ranges": 5, "more": 1}], True), ("what?", True)],
)
def test_a_head_is_the_manifest_without_its_batches_which_are_not_looked_at(batches: object, learned: bool) -> None:
    head, whole = Head.from_json(json.dumps(GOOD | {"batches": batches}).encode()), Manifest.from_json(dumped(GOOD))
    for name in Head.model_fields:
        assert getattr(head, name) == getattr(whole, name), name
    assert (head.created, head.summary()) == (whole.created, whole.summary())
    assert head.learned is learned


def test_whether_something_was_learned() -> None:
    without = {name: value for name, value in GOOD.items() if name != "batches"}
    for fields in (GOOD, without, GOOD | {"batches": []}):
        whole = Manifest.from_json(dumped(fields))
        assert whole.learned is Head.from_json(dumped(fields)).learned is bool(whole.batches)


@pytest.mark.parametrize(
    "change", [{"format": 3}, {"version": "7"}, {"parent": 7}, {"metrics": {"a": "b"}}, {"more": 1}]
)
def test_what_is_refused_of_a_manifest_is_of_a_head(change: dict[str, object]) -> None:
    said = []
    for form in (Head, Manifest):
        with pytest.raises(DamagedManifest) as raised:
            form.from_json(dumped(GOOD | change))
        said.append(str(raised.value))
    assert said[0] == said[1]


def dumped(fields: dict[str, object]) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"null", b"[]", b"7", b"[" * 100_000])
def test_what_is_no_manifest(data: bytes) -> None:
    with pytest.raises(DamagedManifest, match="manifest"):
        Manifest.from_json(data)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_metrics_are_finite(number: str) -> None:
    text = json.dumps(GOOD | {"metrics": {"loss": 77.25}}).replace("77.25", number)
    with pytest.raises(DamagedManifest, match=r"metrics\.loss"):
        Manifest.from_json(text.encode())


def test_a_batch_keeps_what_else_it_depended_on() -> None:
    batch = BatchRecord(ranges=(("events", 0, 1, 2),), replay=1.25, extra={"rate": 0.5, "seeds": [1, 2]})
    assert BatchRecord.model_validate_json(batch.model_dump_json()) == batch
    whole = BatchRecord.model_validate_json(BatchRecord(ranges=(), replay=3).model_dump_json())
    assert isinstance(whole.replay, int | float)
    assert whole.replay == 3


@given(st.floats(0, 4e9))
def test_timestamps(seconds: float) -> None:
    text = timestamp(seconds)
    assert len(text) == len("2026-01-05T10:00:00.123Z")
    created = manifest(1, created=seconds).created
    assert seconds - 0.0011 <= created <= seconds + 1e-6


@given(st.integers(1, 2**53 - 1), st.one_of(st.none(), st.integers(1, 99)), st.integers(0, 2**42))
def test_summaries(version: int, parent: int | None, ms: int) -> None:
    summary = Summary(version, parent, "delta", ms / 1000, ("a" * 64, "b" * 64))
    assert Summary.from_text(version, summary.to_text()) == summary


@pytest.mark.parametrize("text", ["", "delta", "delta 1", "patch 1 2", "delta x 2", "delta 1 y"])
def test_summaries_that_cannot_be_read(text: str) -> None:
    with pytest.raises(DamagedManifest, match="summary of version 3"):
        Summary.from_text(3, text)
