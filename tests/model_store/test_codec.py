"""Updates as blobs: nothing lost, the same bytes everywhere, and nothing hostile taken."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store import container
from model_store.codec import checksum, decode, encode, group_of
from model_store.errors import DamagedBlob, InvalidUpdate
from model_store.weights import Array, Rows, Update, check
from tests.model_store.worlds import assert_same, encoded, histories, index, small, state_of

LIMITS = st.sampled_from([1, 50, 300, 1 << 20])


@given(histories(), LIMITS)
def test_encoding_then_decoding_gives_the_update_back(updates: list[Update], limit: int) -> None:
    for update in updates:
        assert_same(decode(encoded(update, limit=limit), full=update.full), update)


@given(histories(), LIMITS)
def test_snapshot_and_deltas_are_the_full_weights_through_the_codec(updates: list[Update], limit: int) -> None:
    sent = [decode(encoded(update, limit=limit), full=update.full) for update in updates]
    assert_same(state_of(sent).snapshot(), state_of(updates).snapshot())


@given(histories(), LIMITS)
def test_readers_need_only_the_weights(updates: list[Update], limit: int) -> None:
    for update in updates:
        blobs = {name: data for name, data in encoded(update, limit=limit).items() if not name.startswith("trainer/")}
        found = decode(blobs, full=update.full)
        assert set(found.tables) == {name for name in update.tables if group_of(name) == "weights"}
        assert set(found.tensors) == {name for name in update.tensors if group_of(name) == "weights"}


def test_what_is_wanted_and_nothing_else() -> None:
    update = small()
    found = decode(encoded(update), full=True, want=lambda name: name == "item/row")
    assert_same(found, Update(True, {"item/row": update.tables["item/row"]}))


def test_parts_stay_under_the_limit() -> None:
    rows = Rows(np.arange(1000), np.ones((1000, 16), np.float32), 1000)
    ids = Rows(np.arange(0, 2000, 2), [f"item-{n}" for n in range(1000)], 2000)
    blobs = encoded(Update(False, {"row": rows, "id": ids}), limit=10_000)
    assert list(blobs) == [f"weights/{part}" for part in range(len(blobs))]
    assert 80_000 / 10_000 < len(blobs) < 12
    for data in blobs.values():
        arrays, _ = container.unpack(data)
        assert sum(array.nbytes for array in arrays.values()) <= 10_000


def test_an_index_is_left_out_where_rows_follow_each_other() -> None:
    def names(*rows: int) -> set[str]:
        blobs = encoded(Update(False, {"t": Rows(index(*rows), np.ones((len(rows), 2)), 9)}))
        return set(container.unpack(blobs["weights/0"])[0])

    assert names(0, 1, 2) == names(6, 7, 8) == names(4) == names() == {"t:values"}
    assert names(0, 2) == {"t:values", "t:index"}


def test_arrays_are_views_of_the_blob() -> None:
    found = decode(encoded(small()), full=True)
    row = found.tables["item/row"].values
    assert isinstance(row, np.ndarray)
    assert not row.flags.owndata
    assert not row.flags.writeable


def test_nothing_is_no_blob_and_full_nothing_says_so() -> None:
    assert encoded(Update(False)) == {}
    assert_same(decode({}, full=False), Update(False))
    assert list(encoded(Update(True))) == ["weights/0"]
    assert_same(decode(encoded(Update(True)), full=True), Update(True))


def test_the_bytes_do_not_depend_on_the_order_things_were_put_in() -> None:
    update = small()
    turned = replace(
        update, tables=dict(reversed(list(update.tables.items()))), tensors=dict(reversed(list(update.tensors.items())))
    )
    assert encoded(update) == encoded(turned)


PRINT_CHECKSUMS = """
from model_store.codec import checksum
from model_store.version import canonical_json
from tests.model_store.worlds import encoded, manifest, small
for update in small(), small(1, full=False):
    print([checksum(data) for data in encoded(update, limit=200).values()])
print(checksum(manifest(1).to_json()))
"""


def test_every_process_writes_the_same_bytes() -> None:
    root = Path(__file__).parents[2]
    printed = {
        subprocess.run(
            [sys.executable, "-c", PRINT_CHECKSUMS],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(printed) == 1
    assert len(printed.pop().splitlines()) == 3


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("item/row", NAN, "NaN"),
        ("item/row", INF, r"\+inf"),
        ("item/row", -INF, "-inf"),
        ("item/popularity", NAN, "NaN"),
        ("item/popularity", INF, r"\+inf"),
        ("item/popularity", -INF, None),  # a logarithm, the test says below
        ("trainer/item/row", NAN, None),
    ],
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("tensor", [False, True])
def test_numbers_that_are_not_finite(name: str, value: float, why: str | None, dtype: type, tensor: bool) -> None:
    numbers: Array = np.array([1.0, value, 2.0], dtype)
    update = Update(True, {}, {name: numbers}) if tensor else Update(True, {name: Rows(np.arange(3), numbers, 3)})
    if why is None:
        assert_same(decode(encode(update, logarithms={"item/popularity"}), full=True), update)
        return
    with pytest.raises(InvalidUpdate, match=f"{name}: holds {why}"):
        encode(update, logarithms={"item/popularity"})
    if value == -INF:
        return  # which tables hold logarithms only the model knows, and it looks before it takes an update over
    # one who writes blobs by other means
    blob = forge(
        {f"{name}" if tensor else f"{name}:values": numbers}, {} if tensor else {name: {"size": 3, "first": 0}}
    )
    with pytest.raises(DamagedBlob, match=f"weights/0: {name}: holds {why}"):
        decode({"weights/0": blob}, full=True)


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "U3", "O", "longdouble"])
def test_dtypes_that_are_not_sent(dtype: str) -> None:
    with pytest.raises(InvalidUpdate, match="are not sent"):
        encoded(Update(True, {}, {"a": np.zeros(2, dtype)}))


def test_text_that_is_not_unicode() -> None:
    with pytest.raises(InvalidUpdate, match="item/id: text that is not Unicode"):
        encoded(Update(True, {"item/id": Rows(index(0), ["\ud800"], 1)}))


def forge(arrays: dict[str, Array], tables: object, **said: object) -> bytes:
    """A blob as an attacker, or a bug, would write it."""
    base = {"format": 1, "full": True, "group": "weights", "part": 0, "parts": 1, "tables": tables}
    return container.pack(arrays, json.dumps(base | said))


ONE = np.ones((1, 2), np.float32)
TEXT = np.frombuffer(b"abc", np.uint8)


def lengths(*each: int) -> Array:
    return np.array(each, np.int32)


@pytest.mark.parametrize(
    ("blob", "why"),
    [
        (forge({}, {}, format=2), "format '2': this build reads format 1"),
        (container.pack({}, "[]"), "format 'None'"),
        (container.pack({}, "{"), "not JSON"),
        (container.pack({}, "[" * 100_000), "not JSON"),
        (forge({}, {}, more=1), "the metadata has"),
        (forge({}, {}, full=1), "of another type"),
        (forge({}, {}, full=False), "do not agree with the manifest"),
        (forge({}, {}, group="trainer"), "says of itself trainer/0"),
        (forge({}, {}, group=["weights"]), "of another type"),
        (forge({}, {}, part=1), "says of itself weights/1"),
        (forge({}, {}, parts=2), "1 of 2 parts"),
        (forge({}, []), "no JSON object"),
        (forge({}, {"../../etc/passwd": {"size": 0}}), "no name for a table"),
        (forge({"../../etc/passwd": ONE}, {}), "no name for a tensor"),
        (forge({"t:values": ONE}, {}), "no name for a tensor"),
        (forge({"trainer/x": ONE}, {}), "trainer/x does not belong in weights"),
        (forge({"trainer/t:values": ONE}, {"trainer/t": {"size": 1, "first": 0}}), "does not belong in weights"),
        (forge({"t:values": ONE}, {"t": 1}), "a table has a size"),
        (forge({"t:values": ONE}, {"t": {"size": 1, "last": 0}}), "a table has a size"),
        (forge({"t:values": ONE}, {"t": {"size": -1}}), "is no count"),
        (forge({"t:values": ONE}, {"t": {"size": 1.0}}), "is no count"),
        (forge({"t:values": ONE}, {"t": {"size": 2**53, "first": 0}}), "is no count"),
        (forge({"t:values": ONE}, {"t": {"size": 1}}), "t: no index"),
        (forge({"t:values": ONE, "t:index": lengths(0)}, {"t": {"size": 1}}), "index are int32"),
        (forge({"t:values": ONE, "t:index": index(0)[None]}, {"t": {"size": 1}}), "2-d"),
        (forge({"t:values": ONE, "t:index": index(0, 1)}, {"t": {"size": 2}}), "1 values for 2 rows"),
        (forge({"t:values": ONE, "t:index": index(0)}, {"t": {"size": 1, "first": 0}}), "no name for a tensor"),
        (forge({"t:values": ONE, "t:index": index(1)}, {"t": {"size": 1}}), "rows 1..1 of a table of 1"),
        (forge({"t:values": ONE, "t:index": index(-1)}, {"t": {"size": 1}}), "rows -1..-1"),
        (forge({"t:values": np.ones((2, 1)), "t:index": index(1, 0)}, {"t": {"size": 2}}), "does not ascend"),
        (forge({"t:values": np.ones((2, 1)), "t:index": index(1, 1)}, {"t": {"size": 2}}), "does not ascend"),
        (forge({"t:values": ONE}, {"t": {"size": 2, "first": 0}}), "a full update with 1 of 2 rows"),
        (forge({"t:values": ONE}, {"t": {"size": 1, "first": 1}}), "rows 1..1 of a table of 1"),
        (forge({"t:values": ONE}, {"t": {"size": 2**50, "first": 0}}), "a full update with 1 of"),
        (forge({"t:values": np.ones(())}, {"t": {"size": 1, "first": 0}}), "the values have no rows"),
        (forge({}, {"t": {"size": 1, "first": 0}}), "t: no utf8"),
        (forge({"t:utf8": TEXT}, {"t": {"size": 1, "first": 0}}), "t: no lengths"),
        (
            forge({"t:utf8": TEXT.view(np.int8), "t:lengths": lengths(3)}, {"t": {"size": 1, "first": 0}}),
            "utf8 are int8",
        ),
        (forge({"t:utf8": TEXT, "t:lengths": index(3)}, {"t": {"size": 1, "first": 0}}), "lengths are int64"),
        (forge({"t:utf8": TEXT, "t:lengths": lengths(-1, 4)}, {"t": {"size": 2, "first": 0}}), "a negative length"),
        (forge({"t:utf8": TEXT, "t:lengths": lengths(2)}, {"t": {"size": 1, "first": 0}}), "2 bytes for 3 bytes"),
        (forge({"t:utf8": TEXT, "t:lengths": lengths(2, 2)}, {"t": {"size": 2, "first": 0}}), "4 bytes for 3 bytes"),
        (
            forge(
                {"t:utf8": np.array([65, 255], np.uint8), "t:lengths": lengths(1, 1)}, {"t": {"size": 2, "first": 0}}
            ),
            "t: row 1 is not UTF-8",
        ),
        (  # a letter cut in two between rows is whole as a whole, and no row is
            forge(
                {"t:utf8": np.array([195, 164], np.uint8), "t:lengths": lengths(1, 1)}, {"t": {"size": 2, "first": 0}}
            ),
            "t: row 0 is not UTF-8",
        ),
        (forge({"t": ONE, "t:values": ONE}, {"t": {"size": 1, "first": 0}}), "there twice"),
    ],
)
def test_hostile_blobs(blob: bytes, why: str) -> None:
    with pytest.raises(DamagedBlob, match=why):
        decode({"weights/0": blob}, full=True)


@given(st.data())
def test_no_bytes_do_more_than_raise(data: st.DataObject) -> None:
    """Any bytes of a blob changed, with a checksum that agrees: DamagedBlob, or an update that is right in itself."""
    blobs = {name: blob for name, blob in encoded(small()).items() if name == "weights/0"}
    raw = bytearray(blobs["weights/0"])
    header = 8 + int.from_bytes(raw[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.one_of(st.integers(8, header - 1), st.integers(0, len(raw) - 1)))
        raw[place] = data.draw(st.one_of(st.sampled_from(b'0189-{}[],:"\\xu '), st.integers(0, 255)))
    with suppress(DamagedBlob):
        check(decode({"weights/0": bytes(raw)}, full=True))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda b: b.pop("weights/1"), "weights/1 is missing"),
        (lambda b: b.pop("weights/0"), "without the blob weights/0"),
        (lambda b: b.pop(max(b)), "parts"),
        (lambda b: b.update({"weights/0": b["weights/1"]}), "says of itself weights/1"),
        (lambda b: b.update({"x": b""}), "'x' is no name of a blob"),
        (lambda b: b.update({"weights/x": b""}), "is missing beside"),
        (lambda b: b.update({"weights/00": b["weights/0"]}), "is missing beside"),
        (lambda b: b.update({"weights/0": b"not safetensors"}), "weights/0: a header of"),
    ],
)
def test_parts_that_do_not_belong_together(change: Callable[[dict[str, bytes]], None], why: str) -> None:
    blobs = {name: data for name, data in encoded(small(), limit=60).items() if name.startswith("weights/")}
    change(blobs)
    with pytest.raises(DamagedBlob, match=why):
        decode(blobs, full=True)


def test_pieces_of_two_tables_under_one_name() -> None:
    one = forge({"t:values": ONE}, {"t": {"size": 2, "first": 0}}, parts=2)
    other = forge({"t:values": np.ones((1, 3), np.float32)}, {"t": {"size": 2, "first": 1}}, parts=2, part=1)
    with pytest.raises(DamagedBlob, match="not the same table"):
        decode({"weights/0": one, "weights/1": other}, full=True)


def test_the_checksum_is_sha256() -> None:
    assert checksum(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
