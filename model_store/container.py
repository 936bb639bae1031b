"""The safetensors container: named arrays and one string of metadata, the same bytes in every process.

The library is not used, for three reasons: it orders several metadata keys at random, it copies every array once more,
and it accepts what must be refused (a bool that is neither 0 nor 1, names that are paths out of a directory). The bytes
are those that the library writes for one metadata key; a test compares them.
"""

import json
import math
import struct
from collections.abc import Mapping

import numpy as np

from model_store.errors import DamagedBlob
from model_store.weights import Array

METADATA_KEY = "tidemill"

# in the library's order; arrays are laid out from the last dtype to the first, so that each is aligned to its size
_DTYPES = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_RANK = {name: rank for rank, name in enumerate(_DTYPES)}

# a header holds a few dozen names; a larger claim is an attempt to have megabytes of JSON parsed
MAX_HEADER = 4 << 20
_LENGTH = struct.Struct("<Q")


def can_hold(dtype: "np.dtype[np.generic]") -> bool:
    """Whether arrays of this dtype can be written (in either byte order)."""
    return dtype.newbyteorder("<") in _NAMES


def pack(arrays: Mapping[str, Array], metadata: str) -> bytes:
    """Named arrays [any shape] as safetensors bytes, with `metadata` under the one key `tidemill`."""
    named = []
    for name, array in arrays.items():
        little = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
        named.append((-_RANK[_NAMES[little.dtype]], name, little))
    named.sort(key=lambda entry: entry[:2])

    header: dict[str, object] = {"__metadata__": {METADATA_KEY: metadata}}
    end = 0
    for rank, name, array in named:
        start, end = end, end + array.nbytes
        dtype = list(_DTYPES)[-rank]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([_LENGTH.pack(len(text)), text, *(array.reshape(-1).view(np.uint8).data for *_, array in named)])


def unpack(data: bytes) -> tuple[dict[str, Array], str]:
    """The arrays (read-only views of `data`, nothing is copied) and the metadata.

    Raises: DamagedBlob for anything but a header and the arrays it names, side by side from the first byte to the last.
    No memory is allocated by what the header merely claims.
    """
    if len(data) < _LENGTH.size:
        raise DamagedBlob(f"truncated: {len(data)} bytes, not even the header's length")
    (length,) = _LENGTH.unpack_from(data)
    if length > MAX_HEADER:
        raise DamagedBlob(f"a header of {length} bytes; at most {MAX_HEADER} are read")
    start = _LENGTH.size + length
    if start > len(data):
        raise DamagedBlob(f"truncated: a header of {length} bytes in {len(data)}")
    header = _parse(data[_LENGTH.size : start])

    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.keys() != {METADATA_KEY}:
        raise DamagedBlob(f"the metadata must have the one key {METADATA_KEY!r}")
    text = metadata[METADATA_KEY]
    if not isinstance(text, str):
        raise DamagedBlob("the metadata is no string")

    spans = sorted((_span(name, entry) for name, entry in header.items()), key=lambda span: span[3:])
    arrays: dict[str, Array] = {}
    end = 0
    for name, dtype, shape, first, last in spans:
        if first != end:
            raise DamagedBlob(
                f"{name} begins at {first}, {'over' if first < end else 'after a hole behind'} byte {end}"
            )
        end = last
        if end > len(data) - start:
            raise DamagedBlob(f"truncated: {name} ends at {end} of {len(data) - start} bytes")
        array: Array = np.frombuffer(data, dtype, math.prod(shape), start + first).reshape(shape)
        if dtype == np.bool_ and (array.view(np.uint8) > 1).any():
            raise DamagedBlob(f"{name}: a bool that is neither 0 nor 1")
        arrays[name] = array
    if end != len(data) - start:
        raise DamagedBlob(f"{len(data) - start - end} bytes after the last array")
    return arrays, text


def _parse(text: bytes) -> dict[str, object]:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise DamagedBlob("a name stands twice in the header")
        return found

    try:
        header = json.loads(text.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise DamagedBlob(f"the header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise DamagedBlob("the header is no JSON object")
    return header


def _span(name: str, entry: object) -> tuple[str, "np.dtype[np.generic]", list[int], int, int]:
    """(name, dtype, shape, first byte, one past the last) of one array, if they agree with each other."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise DamagedBlob(f"{name[:200]!r}: an entry has dtype, shape and data_offsets")
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise DamagedBlob(f"{name[:200]!r}: dtype {str(entry['dtype'])[:50]!r} is none of {', '.join(_DTYPES)}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _are_counts(shape) or len(shape) > 8:
        raise DamagedBlob(f"{name[:200]!r}: the shape is no list of at most 8 sizes")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise DamagedBlob(f"{name[:200]!r}: the offsets are no pair of sizes")
    if offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise DamagedBlob(f"{name[:200]!r}: {offsets[1] - offsets[0]} bytes for {dtype}{shape}")
    return name, dtype, shape, offsets[0], offsets[1]


def _are_counts(value: object) -> bool:
    # type() and not isinstance(): True is an int, and not a size
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**53 for n in value)
