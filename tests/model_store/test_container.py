"""The container is safetensors, byte for byte, and takes nothing else."""

import json
import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from model_store.container import MAX_HEADER, METADATA_KEY, pack, unpack
from model_store.errors import DamagedBlob
from model_store.weights import Array
from tests.model_store.worlds import same

DTYPES = ["bool", "u1", "i1", "<i2", "<u2", "<f2", "<i4", "<u4", "<f4", "<f8", "<i8", "<u8"]

arrays = st.dictionaries(
    st.text("abc/_", min_size=1, max_size=6),
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
    ),
    max_size=5,
)


@given(arrays, st.text(max_size=10).filter(lambda text: text.isprintable()))
def test_it_writes_what_the_library_writes_and_reads_it_back(named: dict[str, Array], metadata: str) -> None:
    data = pack(named, metadata)
    assert data == safetensors.numpy.save(dict(named), {METADATA_KEY: metadata})
    found, text = unpack(data)
    assert text == metadata
    assert found.keys() == named.keys()
    for name, array in named.items():
        assert same(found[name], array)
        assert not found[name].flags.writeable


def test_big_endian_and_strided_arrays_are_written_little_endian_and_dense() -> None:
    array = np.arange(12, dtype=">f4").reshape(3, 4)[:, ::2]
    found, _ = unpack(pack({"a": array}, ""))
    assert same(found["a"], np.array([[0, 2], [4, 6], [8, 10]], np.float32))


def container(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


META = {"__metadata__": {METADATA_KEY: "x"}}


def entry(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not even the header's length"),
        (b"1234567", "not even the header's length"),
        (struct.pack("<Q", 2**63), "a header of 9223372036854775808 bytes"),
        (struct.pack("<Q", MAX_HEADER + 1), "a header of"),
        (struct.pack("<Q", 10) + b"{}", "truncated: a header of 10 bytes in 10"),
        (container(b"{"), "not JSON"),
        (container(b"\xff{}"), "not JSON"),
        (container(b"[" * 100_000), "not JSON"),
        (container(b"1" * 5000), "not JSON"),
        (container([1]), "no JSON object"),
        (container({}), "the one key"),
        (container({"__metadata__": {METADATA_KEY: "x", "other": "y"}}), "the one key"),
        (container({"__metadata__": {METADATA_KEY: 5}}), "no string"),
        (container(b'{"a":1,"a":2}'), "stands twice"),
        (container({**META, "a": 5}), "an entry has"),
        (container({**META, "a": {**entry(), "more": 1}}, bytes(4)), "an entry has"),
        (container({**META, "a": entry("BF16", (2,))}, bytes(4)), "dtype 'BF16'"),
        (container({**META, "a": entry(["F32"])}, bytes(4)), "dtype"),
        (container({**META, "a": entry(shape=(-1,))}, bytes(4)), "the shape"),
        (container({**META, "a": entry(shape=(True,))}, bytes(4)), "the shape"),
        (container({**META, "a": entry(shape=(1.0,))}, bytes(4)), "the shape"),
        (container({**META, "a": entry(shape=[1] * 9)}, bytes(4)), "the shape"),
        (container({**META, "a": entry(shape=(2**40, 2**40), offsets=(0, 4))}, bytes(4)), "4 bytes for float32"),
        (container({**META, "a": entry(shape=(0, 2**62), offsets=(0, 0))}), "the shape"),
        (container({**META, "a": entry(offsets=(0, 4, 8))}, bytes(8)), "no pair"),
        (container({**META, "a": entry(offsets=(4, 0))}, bytes(4)), "-4 bytes"),
        (container({**META, "a": entry(offsets=(0, 8))}, bytes(8)), "8 bytes for float32"),
        (container({**META, "a": entry(), "b": entry()}, bytes(4)), "b begins at 0, over byte 4"),
        (container({**META, "a": entry(), "b": entry(offsets=(8, 12))}, bytes(12)), "a hole"),
        (container({**META, "a": entry()}, bytes(3)), "truncated: a ends at 4 of 3"),
        (container({**META, "a": entry()}, bytes(5)), "1 bytes after the last"),
        (container(META, b"smuggled"), "8 bytes after the last"),
        (container({**META, "a": entry("BOOL", (1,), (0, 1))}, b"\x02"), "neither 0 nor 1"),
    ],
)
def test_hostile_bytes(data: bytes, why: str) -> None:
    with pytest.raises(DamagedBlob, match=why):
        unpack(data)


@given(st.data())
def test_no_bytes_do_more_than_raise(data: st.DataObject) -> None:
    """Any byte of a good blob changed, any end cut off: an error or arrays, never a crash."""
    good = pack({"a:values": np.ones((2, 3), np.float32), "b": np.array([True, False])}, '{"x":1}')
    raw = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(raw)))
    try:
        found, _ = unpack(bytes(raw[:end]))
    except DamagedBlob:
        return
    assert sum(array.nbytes for array in found.values()) <= len(good)
